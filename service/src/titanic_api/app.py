"""Puts the service together: Flask with its blueprints, the fast answers in front of it, observation around both."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as FlaskMethodNotAllowed

from titanic_api import discovery, pages
from titanic_api.config import Settings
from titanic_api.db import Database
from titanic_api.errors import Fault, MalformedBody, MethodNotAllowed, RouteNotFound, TitanicError, answer_for
from titanic_api.fast_path import FastPath
from titanic_api.health import Health
from titanic_api.observability import ROUTE, Observability, internal_error, pool_in_use, sample
from titanic_api.people.blueprint import people_blueprint
from titanic_api.people.views import People
from titanic_api.rate_limit import RateLimit
from titanic_api.request_parsing import Clients
from titanic_api.responses import to_response
from titanic_api.shared_counters import shared_counters


def create_app(settings: Settings) -> Flask:
    """The WSGI application. Opens no connection yet, so it starts without its database."""
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    database = Database(settings)
    sample(pool_in_use, lambda: database.in_use)
    clients = Clients(settings.trusted_proxies)
    people = People(settings, database)
    app.register_blueprint(people_blueprint(people))
    app.register_blueprint(Health(settings, database, clients).blueprint())
    app.register_blueprint(discovery.blueprint)
    app.register_blueprint(pages.blueprint)
    _register_errors(app)
    app.before_request(_name_the_route)
    inner: Any = FastPath(app.wsgi_app, people)
    if settings.rate_limit_per_minute:
        inner = RateLimit(inner, settings.rate_limit_per_minute, clients, shared_counters(settings.counts_file))
    app.wsgi_app = Observability(inner, settings, clients)  # type: ignore[method-assign]
    return app


def _name_the_route() -> None:
    if request.url_rule is not None:
        g.route = request.url_rule.rule.replace("<", "{").replace(">", "}")
        request.environ[ROUTE] = g.route


def _register_errors(app: Flask) -> None:
    def titanic_error(error: TitanicError) -> Response:
        return to_response(answer_for(error))

    def http_error(error: HTTPException) -> Any:
        if isinstance(error, FlaskMethodNotAllowed):
            allow = ", ".join(sorted(error.valid_methods or ()))
            return to_response(answer_for(MethodNotAllowed(request.method[:32], allow)))
        if error.code == 404:
            return to_response(answer_for(RouteNotFound(Fault("path", "nothing is served under this path"))))
        if error.code is not None and error.code < 400:
            return error
        return to_response(answer_for(MalformedBody(Fault("request", error.name))))

    def any_error(_: Exception) -> Response:
        return to_response(internal_error(request.environ))

    app.register_error_handler(TitanicError, titanic_error)
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(Exception, any_error)
