"""Health and what operators ask besides: liveness, readiness, version, metrics."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from titanic_api import __version__, observability, schema
from titanic_api.config import Settings
from titanic_api.db import Database
from titanic_api.errors import DatabaseUnavailable, Fault, MetricsRefused, NotReady
from titanic_api.request_parsing import Clients

NOT_KEPT = {"Cache-Control": "no-store"}


class Health:
    """The views; ``blueprint`` gives them their paths."""

    def __init__(self, settings: Settings, database: Database, clients: Clients) -> None:
        self._settings = settings
        self._clients = clients
        self._database = database

    def blueprint(self) -> Blueprint:
        """The routes."""
        blueprint = Blueprint("health", __name__)
        for path, view in (
            ("/healthz", self.live),
            ("/health", self.live),
            ("/readyz", self.ready),
            ("/ready", self.ready),
            ("/version", self.version),
            ("/metrics", self.metrics),
        ):
            blueprint.add_url_rule(path, view_func=view)
        return blueprint

    def live(self) -> Any:
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
        return Response(observability.metrics_text(), content_type="text/plain; version=0.0.4; charset=utf-8")
