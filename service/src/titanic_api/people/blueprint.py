"""The routes of ``/people`` in Flask."""

from __future__ import annotations

from flask import Blueprint, Response, request

from titanic_api.people.views import People
from titanic_api.responses import to_response


def people_blueprint(people: People) -> Blueprint:
    """The blueprint that answers with ``people``."""
    blueprint = Blueprint("people", __name__)

    @blueprint.get("/people")
    def list_people() -> Response:
        return to_response(people.list(request.environ))

    @blueprint.post("/people")
    def create_person() -> Response:
        return to_response(people.create(request.environ))

    @blueprint.get("/people/<uuid>")
    def read_person(uuid: str) -> Response:
        return to_response(people.read(request.environ, uuid))

    @blueprint.put("/people/<uuid>")
    def replace_person(uuid: str) -> Response:
        return to_response(people.replace(request.environ, uuid))

    @blueprint.patch("/people/<uuid>")
    def change_person(uuid: str) -> Response:
        return to_response(people.change(request.environ, uuid))

    @blueprint.delete("/people/<uuid>")
    def delete_person(uuid: str) -> Response:
        return to_response(people.delete(request.environ, uuid))

    return blueprint
