"""API discovery: the welcome at ``/`` and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from titanic_api import __version__
from titanic_api.errors import Fault, NotAcceptable
from titanic_api.openapi import document
from titanic_api.people.views import no_parameters

PAGE = "pages.index"

blueprint = Blueprint("discovery", __name__)


@blueprint.get("/")
def welcome() -> Any:
    """``GET /``: JSON, or the page with the passengers for a client that prefers ``text/html``."""
    page: Callable[[], Any] | None = current_app.view_functions.get(PAGE)
    offered = ["application/json", "text/html"] if page else ["application/json"]
    accepted = request.accept_mimetypes
    best = accepted.best_match(offered) if accepted else offered[0]
    if best is None:
        raise NotAcceptable(Fault("Accept", "must allow " + " or ".join(offered)))
    if best == "text/html" and page is not None:
        return page()  # its script reads the query string
    no_parameters(request.environ)
    response = jsonify(message="Welcome to the Titanic API", version=__version__)
    response.headers["Vary"] = "Accept"
    return response


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """``GET /openapi.json``."""
    return jsonify(document())
