"""What the service says about itself: welcome, probes, version, metrics, the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from titanic_api import __version__, observe, schema
from titanic_api.config import Settings
from titanic_api.db import Database
from titanic_api.errors import DatabaseUnavailable, Fault, NotAcceptable, NotReady
from titanic_api.openapi import document
from titanic_api.people.views import no_parameters

NOT_KEPT = {"Cache-Control": "no-store"}
PAGE = "pages.index"


def service_blueprint(settings: Settings, database: Database) -> Blueprint:
    """The blueprint of everything that is not about people."""
    blueprint = Blueprint("service", __name__)

    @blueprint.get("/")
    def welcome() -> Any:
        no_parameters_unless_page()
        accepted = request.accept_mimetypes
        page: Callable[[], Any] | None = current_app.view_functions.get(PAGE)
        offered = ["application/json", "text/html"] if page else ["application/json"]
        best = accepted.best_match(offered) if accepted else offered[0]
        if best == "text/html" and page is not None:
            return page()
        if best is None:
            raise NotAcceptable(Fault("Accept", "must allow " + " or ".join(offered)))
        response = jsonify(message="Welcome to the Titanic API", version=__version__)
        response.headers["Vary"] = "Accept"
        return response

    def no_parameters_unless_page() -> None:
        if "text/html" not in request.headers.get("Accept", ""):
            no_parameters(request.environ)

    @blueprint.get("/healthz")
    @blueprint.get("/health")
    def health() -> Any:
        return jsonify(status="ok"), NOT_KEPT

    @blueprint.get("/readyz")
    @blueprint.get("/ready")
    def ready() -> Any:
        if settings.drain_file is not None and settings.drain_file.exists():
            raise NotReady(Fault("traffic", "draining: this process is about to stop"))
        try:
            with database.session() as session:
                state = schema.read_state(session)
        except DatabaseUnavailable as error:
            raise NotReady(*error.faults) from error
        problem = schema.problem(state)
        if problem is not None:
            raise NotReady(Fault("schema", problem))
        return jsonify(status="ready", schema=state.current), NOT_KEPT

    @blueprint.get("/version")
    def version() -> Any:
        return jsonify(version=__version__, release=settings.release, schema=schema.REQUIRED), NOT_KEPT

    @blueprint.get("/metrics")
    def metrics() -> Response:
        return Response(observe.metrics_text(), content_type="text/plain; version=0.0.4; charset=utf-8")

    @blueprint.get("/openapi.json")
    def openapi() -> Any:
        return jsonify(document())

    return blueprint
