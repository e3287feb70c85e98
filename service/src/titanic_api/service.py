"""What the service says about itself: welcome, probes, version, metrics, the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from titanic_api import __version__, observe, schema
from titanic_api.config import Settings
from titanic_api.db import Database
from titanic_api.errors import DatabaseUnavailable, Fault, MetricsRefused, NotAcceptable, NotReady
from titanic_api.incoming import Clients
from titanic_api.openapi import document
from titanic_api.people.views import no_parameters

NOT_KEPT = {"Cache-Control": "no-store"}
PAGE = "pages.index"


class Service:
    """The views; ``blueprint`` gives them their paths."""

    def __init__(self, settings: Settings, database: Database, clients: Clients) -> None:
        self._settings = settings
        self._clients = clients
        self._database = database

    def blueprint(self) -> Blueprint:
        """The routes."""
        blueprint = Blueprint("service", __name__)
        for path, view in (
            ("/", self.welcome),
            ("/healthz", self.health),
            ("/health", self.health),
            ("/readyz", self.ready),
            ("/ready", self.ready),
            ("/version", self.version),
            ("/metrics", self.metrics),
            ("/openapi.json", self.openapi),
        ):
            blueprint.add_url_rule(path, view_func=view)
        return blueprint

    def welcome(self) -> Any:
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

    def health(self) -> Any:
        """``GET /healthz``: the process answers. It never asks the database, whose loss no restart would mend."""
        return jsonify(status="ok"), NOT_KEPT

    def ready(self) -> Any:
        """``GET /readyz``: whether this process should get traffic: not draining, database there, schema right."""
        try:
            with self._database.session() as session:
                state = schema.read_state(session)
        except DatabaseUnavailable as error:
            raise NotReady(*error.faults) from error
        problem = schema.problem(state)
        if problem is not None:
            raise NotReady(Fault("schema", problem))
        drain_file = self._settings.drain_file
        if drain_file is not None and drain_file.exists():
            # The last reason: who holds the file is to know that there is no other.
            raise NotReady(Fault("traffic", "draining: the file that keeps requests away is there"))
        return jsonify(status="ready", schema=state.current), NOT_KEPT

    def version(self) -> Any:
        """``GET /version``."""
        return jsonify(version=__version__, release=self._settings.release, schema=schema.REQUIRED), NOT_KEPT

    def metrics(self) -> Response:
        """``GET /metrics``: of all workers, whichever answers, for who may have them."""
        if not self._clients.may_scrape(request.environ, self._settings.metrics_from):
            raise MetricsRefused(Fault("client", "may not have the metrics: TITANIC_METRICS_FROM says who may"))
        return Response(observe.metrics_text(), content_type="text/plain; version=0.0.4; charset=utf-8")

    def openapi(self) -> Response:
        """``GET /openapi.json``."""
        return jsonify(document())
