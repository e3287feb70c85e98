"""The pages for people: the passengers at `/`, the API's reference at `/docs`, and the files that both need.

The templates hold no data. Everything shown is fetched by the browser from the public API, so that what a reader sees
is what a program gets. Addresses in the templates are relative: the pages work behind any path prefix without being
told.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from flask import Blueprint, Response, abort, render_template, request
from werkzeug.http import quote_etag

from titanic_api.people.preconditions import check_match

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ASSETS", "ASSETS_VERSION", "CONTENT_SECURITY_POLICY", "Asset", "asset", "blueprint", "docs", "index"]

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        # Names come from users: with these two the browser itself refuses innerHTML and its relatives.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""What the pages may do: load and ask this origin, run no inline script, apply no inline style (W3C CSP level 3)."""

# What holds for every answer (nosniff, referrer, frames) is added by the service, around the pages too.
_SECURITY_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
}
_REVALIDATE: Final = "no-cache"
_FOREVER: Final = "public, max-age=31536000, immutable"
# Not left to the machine's own table: a module script with a wrong type is refused by browsers.
_MEDIA_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Asset:
    """One static file: its bytes, its media type, and the SHA-256 of its bytes in hexadecimal."""

    content: bytes
    media_type: str
    digest: str


def _load_assets() -> Mapping[str, Asset]:
    """Read every file of `assets/` once, by name; a request can then reach these files and no others."""
    assets: dict[str, Asset] = {}
    for entry in sorted(resources.files(__name__).joinpath("assets").iterdir(), key=lambda file: file.name):
        suffix = entry.name[entry.name.rfind(".") :]
        if entry.is_file() and suffix in _MEDIA_TYPES:
            content = entry.read_bytes()
            assets[entry.name] = Asset(content, _MEDIA_TYPES[suffix], hashlib.sha256(content).hexdigest())
    return MappingProxyType(assets)


ASSETS: Final = _load_assets()
"""The static files by name."""

ASSETS_VERSION: Final = hashlib.sha256(
    "".join(f"{name}:{found.digest};" for name, found in ASSETS.items()).encode()
).hexdigest()[:16]
"""16 hexadecimal digits that change when any static file does; part of each file's address."""

blueprint = Blueprint("pages", __name__, template_folder="templates")


def _page(template: str) -> Response:
    response = Response(render_template(template, assets=f"pages/{ASSETS_VERSION}"), mimetype="text/html")
    response.headers.update(_SECURITY_HEADERS)
    response.headers["Cache-Control"] = _REVALIDATE
    response.vary.add("Accept")
    response.add_etag()
    return _conditional(response)


def _conditional(response: Response) -> Response:
    """The response, or 304 in its place (RFC 9110, 13.2.2). Raises PreconditionFailed."""
    tag, _ = response.get_etag()
    check_match(request.headers.get("If-Match"), quote_etag(tag or ""))
    # Werkzeug would answer 412 itself, as HTML, and to * too.
    response.make_conditional({**request.environ, "HTTP_IF_MATCH": ""})
    return response


# An endpoint without a route: `/` belongs to `discovery.py`, which chooses between this page and its JSON. Flask does
# not put the blueprint's name before an endpoint made in this way.
@blueprint.endpoint("pages.index")
def index() -> Response:
    """Answer `GET /` for a client that prefers `text/html`: the passengers, with search, filters and plots."""
    return _page("pages/index.html")


@blueprint.get("/docs")
def docs() -> Response:
    """Answer `GET /docs`: the API's reference, drawn in the browser from `/openapi.json`."""
    return _page("pages/docs.html")


@blueprint.get("/pages/<version>/<name>")
def asset(version: str, name: str) -> Response:
    """Answer a static file; 404 for a name that is not one of `ASSETS`.

    A file asked for by its own version never changes and is cached for a year. While a release is being switched a page
    of the old release may ask the new one: it gets the present file, to be revalidated, instead of a 404.
    """
    found = ASSETS.get(name)
    if found is None:
        abort(404)
    response = Response(found.content, mimetype=found.media_type)
    response.headers.update(_SECURITY_HEADERS)
    response.headers["Cache-Control"] = _FOREVER if version == ASSETS_VERSION else _REVALIDATE
    response.set_etag(found.digest)
    return _conditional(response)
