"""The OpenAPI 3.1 document of the service."""

from __future__ import annotations

from typing import Any

from titanic_api import __version__


def document() -> dict[str, Any]:
    """The document, made anew for each caller."""
    return {"openapi": "3.1.0", "info": {"title": "Titanic API", "version": __version__}, "paths": {}}
