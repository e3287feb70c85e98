"""The OpenAPI 3.1 document: built from the same limits that the code enforces, and fuzzed in the tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from titanic_api import __version__
from titanic_api.errors import (
    PROBLEM_JSON,
    REGISTRY,
    BodyTooLarge,
    BodyTooSlow,
    DatabaseUnavailable,
    IdempotencyConflict,
    InvalidHeader,
    InvalidPerson,
    InvalidQuery,
    ListTooLong,
    MalformedBody,
    MetricsRefused,
    NotAcceptable,
    NotReady,
    OutcomeUnknown,
    PersonNotFound,
    PreconditionFailed,
    TitanicError,
    TokenRequired,
    TooManyRequests,
    UnsupportedMediaType,
)
from titanic_api.people.model import BLANK, CONTROL, MAX_AGE, MAX_FARE, MAX_RELATIVES, NAME_LENGTH, SEXES
from titanic_api.people.views import KEY_LENGTH, MAX_LIMIT, MAX_OFFSET, SORT_KEYS

Json = dict[str, Any]

NAME_PATTERN = f"^[^{CONTROL}]*[^{CONTROL}{BLANK}][^{CONTROL}]*$"
OR = ", or: "


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


PROPERTIES: Json = {
    "survived": {"type": "boolean", "description": "Whether the passenger lived."},
    "passengerClass": {"type": "integer", "minimum": 1, "maximum": 3},
    "name": {"type": "string", "minLength": 1, "maxLength": NAME_LENGTH, "pattern": NAME_PATTERN},
    "sex": {"type": "string", "enum": list(SEXES)},
    "age": {
        "type": ["number", "null"],
        "minimum": 0,
        "maximum": MAX_AGE,
        "description": "In years; null where the record has none. An integral age is written as an integer.",
    },
    "siblingsOrSpousesAboard": {"type": "integer", "minimum": 0, "maximum": MAX_RELATIVES},
    "parentsOrChildrenAboard": {"type": "integer", "minimum": 0, "maximum": MAX_RELATIVES},
    "fare": {
        "type": "number",
        "minimum": 0,
        "maximum": MAX_FARE,
        "description": "In pounds of 1912, always written with a decimal point.",
    },
}
GIVEN: Json = {
    **PROPERTIES,
    "survived": {"enum": [True, False, 0, 1], "description": "Whether the passenger lived; 0 and 1 are taken too."},
}
EXAMPLE: Json = {
    "survived": True,
    "passengerClass": 1,
    "name": "Mrs. John Bradley (Florence Briggs Thayer) Cumings",
    "sex": "female",
    "age": 38,
    "siblingsOrSpousesAboard": 1,
    "parentsOrChildrenAboard": 0,
    "fare": 71.2833,
}


def _schemas() -> Json:
    uuid = {"type": "string", "format": "uuid", "description": "Chosen by the service; never changes."}
    return {
        "Person": {
            "type": "object",
            "properties": {"uuid": uuid, **PROPERTIES},
            "required": ["uuid", *PROPERTIES],
            "additionalProperties": False,
            "examples": [{"uuid": "c4b4680c-fc1a-5788-88b2-ab9dd08e0f3f", **EXAMPLE}],
        },
        "NewPerson": {
            "type": "object",
            "description": "A whole person. In PUT, a `uuid` equal to the path's is allowed too.",
            "properties": GIVEN,
            "required": [name for name in GIVEN if name != "age"],
            "additionalProperties": False,
            "examples": [EXAMPLE],
        },
        "PersonPatch": {
            "type": "object",
            "description": "The fields to replace. A `uuid` equal to the path's is allowed too.",
            "properties": GIVEN,
            "additionalProperties": False,
            "examples": [{"age": 39}],
        },
        "Problem": {
            "type": "object",
            "description": "RFC 9457: what went wrong; `errors` names each field, parameter or header at fault.",
            "properties": {
                "type": {"type": "string", "format": "uri"},
                "title": {"type": "string"},
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": {"type": "string"},
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
                        "required": ["field", "detail"],
                    },
                },
            },
            "required": ["type", "title", "status", "detail", "errors"],
        },
    }


def _parameter(name: str, place: str, schema: Json, text: str, *, required: bool = False) -> Json:
    return {"name": name, "in": place, "required": required, "description": text, "schema": schema}


def _parameters() -> Json:
    tags = {"type": "string"}
    return {
        "uuid": _parameter("uuid", "path", {"type": "string", "format": "uuid"}, "Which person.", required=True),
        "survived": _parameter("survived", "query", {"enum": ["true", "false", "1", "0"]}, "Only these."),
        "passengerClass": _parameter(
            "passengerClass", "query", {"type": "integer", "minimum": 1, "maximum": 3}, "Only this class."
        ),
        "sex": _parameter("sex", "query", {"type": "string", "enum": list(SEXES)}, "Only this sex."),
        "q": _parameter("q", "query", PROPERTIES["name"], "Only names that contain this, in any case."),
        "sort": _parameter(
            "sort", "query", {"type": "string", "enum": list(SORT_KEYS)}, "Order; `-` before it: falling."
        ),
        "limit": _parameter(
            "limit",
            "query",
            {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
            "Length of the page. A long list is refused without.",
        ),
        "offset": _parameter(
            "offset", "query", {"type": "integer", "minimum": 0, "maximum": MAX_OFFSET}, "How many to leave out."
        ),
        "ifNoneMatch": _parameter("If-None-Match", "header", tags, "Answer 304 if the entity tag is still this one."),
        "readIfMatch": _parameter(
            "If-Match", "header", tags, "Answer only if the entity tag is still this one, else 412."
        ),
        "ifMatch": _parameter("If-Match", "header", tags, "Write only if the entity tag is still this one, else 412."),
        "unlessMatch": _parameter(
            "If-None-Match", "header", tags, "Write only if the entity tag is none of these, else 412; * is any."
        ),
        "idempotencyKey": _parameter(
            "Idempotency-Key",
            "header",
            {"type": "string", "pattern": f"^[!-~]{{1,{KEY_LENGTH}}}$"},
            "Repeating a request with its key for a day repeats its answer and adds nobody.",
        ),
    }


def _headers() -> Json:
    def header(schema: Json, text: str) -> Json:
        return {"description": text, "schema": schema}

    return {
        "ETag": header({"type": "string"}, "Entity tag of the body."),
        "Location": header({"type": "string"}, "Path of the new person."),
        "Link": header({"type": "string"}, "RFC 8288: first, prev, next and last page, when `limit` is given."),
        "X-Total-Count": header({"type": "integer", "minimum": 0}, "People on all pages, when the list is narrowed."),
        "Retry-After": header({"type": "integer", "minimum": 0}, "Seconds to wait before trying again."),
        "Allow": header({"type": "string"}, "The methods there are."),
        "WWW-Authenticate": header({"type": "string"}, "RFC 6750: a bearer token is asked for."),
    }


def _meanings(errors: Iterable[type[TitanicError]]) -> dict[str, str]:
    """What each status means of these errors, by status."""
    kinds = [REGISTRY[error] for error in errors]
    return {
        str(status): OR.join(kind.title for kind in kinds if kind.status == status)
        for status in sorted({kind.status for kind in kinds})
    }


def _problems(*errors: type[TitanicError]) -> Json:
    """The answers of an operation that raises these errors; the description is that of this operation."""
    return {
        status: {**_ref("responses", status), "description": meaning} for status, meaning in _meanings(errors).items()
    }


def _problem_responses() -> Json:
    extra = {"401": ["WWW-Authenticate"], "405": ["Allow"], "429": ["Retry-After"], "503": ["Retry-After"]}
    return {
        status: {
            "description": meaning,
            "headers": {name: _ref("headers", name) for name in extra.get(status, [])},
            "content": {PROBLEM_JSON: {"schema": _ref("schemas", "Problem")}},
        }
        for status, meaning in _meanings(REGISTRY).items()
    }


def _json(description: str, schema: Json, *headers: str, links: Json | None = None) -> Json:
    response: Json = {
        "description": description,
        "headers": {name: _ref("headers", name) for name in headers},
        "content": {"application/json": {"schema": schema}},
    }
    if links:
        response["links"] = links
    return response


def _body(name: str, *media_types: str) -> Json:
    content = {media_type: {"schema": _ref("schemas", name)} for media_type in media_types}
    return {"required": True, "content": content}


def _operation(operation_id: str, tag: str, summary: str, responses: Json, **more: Any) -> Json:
    return {"operationId": operation_id, "tags": [tag], "summary": summary, **more, "responses": responses}


READING = (InvalidQuery, NotAcceptable, PreconditionFailed, TooManyRequests, DatabaseUnavailable)
CHANGING = (InvalidQuery, TokenRequired, PreconditionFailed, TooManyRequests, DatabaseUnavailable, OutcomeUnknown)
# What can be wrong with a body that nobody looks into.
BODY = (MalformedBody, BodyTooSlow, BodyTooLarge)
WRITING = (*CHANGING, *BODY, UnsupportedMediaType, InvalidPerson)
UNCHANGED: Json = {"304": {"description": "It has not changed.", "headers": {"ETag": _ref("headers", "ETag")}}}
ANY_PATH = (
    "Every path answers `HEAD` as `GET` without the body, and `OPTIONS` with 200 and the methods there are in `Allow`. "
    "Another method is answered with 405, another path with 404, a defect of the service with 500. "
    "A proxy in front refuses by itself what it cannot read (for Caddy: two `Host` headers, `%zz` in a path), with 400 "
    "in plain text: the service never sees that."
)
# Anybody may write unless the service was given tokens.
ANYBODY_OR_TOKEN: list[Json] = [{}, {"token": []}]


def _people_paths() -> Json:
    person = _ref("schemas", "Person")
    links = {
        name: {"operationId": name, "parameters": {"uuid": "$response.body#/uuid"}}
        for name in ("readPerson", "replacePerson", "changePerson", "deletePerson")
    }
    narrowing = ("survived", "passengerClass", "sex", "q", "sort", "limit", "offset")
    one: Json = {"parameters": [_ref("parameters", "uuid")]}
    read_match = [_ref("parameters", "readIfMatch"), _ref("parameters", "ifNoneMatch")]
    match = [_ref("parameters", "ifMatch"), _ref("parameters", "unlessMatch")]
    everybody = _json("The people.", {"type": "array", "items": person}, "ETag", "Link", "X-Total-Count")
    return {
        "/people": {
            "get": _operation(
                "listPeople",
                "people",
                "Everybody, in the data set's order and then that of creation, or those who fit",
                {"200": everybody, **UNCHANGED, **_problems(*READING, ListTooLong)},
                parameters=[*(_ref("parameters", name) for name in narrowing), *read_match],
            ),
            "post": _operation(
                "createPerson",
                "people",
                "Add a person",
                {
                    "201": _json("The new person.", person, "ETag", "Location", links=links),
                    **_problems(*WRITING, InvalidHeader, IdempotencyConflict),
                },
                parameters=[_ref("parameters", "idempotencyKey"), *match],
                requestBody=_body("NewPerson", "application/json"),
                security=ANYBODY_OR_TOKEN,
            ),
        },
        "/people/{uuid}": one
        | {
            "get": _operation(
                "readPerson",
                "people",
                "One person",
                {"200": _json("The person.", person, "ETag"), **UNCHANGED, **_problems(*READING, PersonNotFound)},
                parameters=read_match,
            ),
            "put": _operation(
                "replacePerson",
                "people",
                "Replace a person as a whole",
                {"200": _json("The person now.", person, "ETag"), **_problems(*WRITING, PersonNotFound)},
                parameters=match,
                requestBody=_body("NewPerson", "application/json"),
                security=ANYBODY_OR_TOKEN,
            ),
            "patch": _operation(
                "changePerson",
                "people",
                "Replace some fields of a person (RFC 7396)",
                {"200": _json("The person now.", person, "ETag"), **_problems(*WRITING, PersonNotFound)},
                parameters=match,
                requestBody=_body("PersonPatch", "application/json", "application/merge-patch+json"),
                security=ANYBODY_OR_TOKEN,
            ),
            "delete": _operation(
                "deletePerson",
                "people",
                "Remove a person",
                {"204": {"description": "Removed."}, **_problems(*CHANGING, *BODY, PersonNotFound)},
                parameters=match,
                security=ANYBODY_OR_TOKEN,
            ),
        },
    }


def _text(media_type: str, description: str) -> Json:
    return {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _service_paths() -> Json:
    text: Json = {"type": "string"}
    welcome = _json("A welcome; to who prefers text/html, a page.", _object(message=text, version=text))
    welcome["content"]["text/html"] = {"schema": text}
    alive = _json("The process answers.", _object(status={"const": "ok"}))
    ready = _json("Ready for traffic.", _object(status={"const": "ready"}, schema=text))
    version = _json("What runs.", _object(version=text, release=text, schema=text))

    def get(operation_id: str, summary: str, response: Json, *problems: type[TitanicError]) -> Json:
        return {"get": _operation(operation_id, "service", summary, {"200": response, **_problems(*problems)})}

    def page(operation_id: str, summary: str, response: Json, *problems: type[TitanicError]) -> Json:
        answers = {"200": response, **UNCHANGED, **_problems(*problems, PreconditionFailed)}
        parameters = [_ref("parameters", "readIfMatch"), _ref("parameters", "ifNoneMatch")]
        return {"get": _operation(operation_id, "service", summary, answers, parameters=parameters)}

    return {
        "/": page("welcome", "Welcome", welcome, InvalidQuery, NotAcceptable, TooManyRequests),
        "/healthz": get("healthz", "Whether the process lives; never asks the database", alive),
        "/health": get("health", "Another name of /healthz", alive),
        "/readyz": get("readyz", "Whether it should get traffic", ready, NotReady),
        "/ready": get("ready", "Another name of /readyz", ready, NotReady),
        "/version": get("version", "Version, release and schema revision", version),
        "/metrics": get(
            "metrics", "Prometheus metrics", _text("text/plain", "Prometheus's text format."), MetricsRefused
        ),
        "/openapi.json": get("openapi", "This document", _json("OpenAPI 3.1.", {"type": "object"}), TooManyRequests),
        "/docs": page("docs", "This document as a page", _text("text/html", "A page."), TooManyRequests),
    }


def document() -> Json:
    """The OpenAPI 3.1 document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Titanic API",
            "version": __version__,
            "summary": "The passengers of the Titanic",
            "description": ANY_PATH,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "people"}, {"name": "service"}],
        "paths": _people_paths() | _service_paths(),
        "components": {
            "schemas": _schemas(),
            "parameters": _parameters(),
            "headers": _headers(),
            "responses": _problem_responses(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
