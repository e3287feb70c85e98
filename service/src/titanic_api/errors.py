# ruff: noqa: N818 (an error is called what it is: a person who is not found is no "PersonNotFoundError")
"""The domain's errors, which know no HTTP, and the one registry that turns each into an RFC 9457 problem document."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Fault(NamedTuple):
    """One thing that is wrong: which field, parameter or header, and why."""

    field: str
    detail: str


class TitanicError(Exception):
    """Anything that a client is told about. ``faults`` name what is wrong, ``detail`` says it for people."""

    def __init__(self, *faults: Fault, detail: str | None = None) -> None:
        self.faults = faults
        self.detail = detail or "; ".join(f"{fault.field}: {fault.detail}" for fault in faults)
        super().__init__(self.detail)

    @classmethod
    def of(cls, field: str, detail: str) -> TitanicError:
        """The error about one field."""
        return cls(Fault(field, detail))


class MalformedBody(TitanicError):
    """The body is not JSON, or is not framed as HTTP asks."""


class InvalidPerson(TitanicError):
    """The body is JSON and not a person."""


class InvalidQuery(TitanicError):
    """A query parameter is unknown, repeated or out of bounds."""


class ListTooLong(TitanicError):
    """More people than one answer may hold, and no page was asked for."""


class InvalidHeader(TitanicError):
    """A request header cannot be used."""


class PersonNotFound(TitanicError):
    """No person has this uuid."""


class RouteNotFound(TitanicError):
    """Nothing is served under this path."""


class MethodNotAllowed(TitanicError):
    """The path is right and the method is not; ``allow`` lists the methods there are."""

    def __init__(self, method: str, allow: str) -> None:
        self.allow = allow
        super().__init__(Fault("method", f"{method} is not offered here, only {allow}"))


class MetricsRefused(TitanicError):
    """The metrics are not for this client."""


class NotAcceptable(TitanicError):
    """The client accepts none of the media types there are."""


class BodyTooLarge(TitanicError):
    """The body is longer than the limit."""


class BodyTooSlow(TitanicError):
    """The body did not arrive within the time limit."""


class UnsupportedMediaType(TitanicError):
    """The body is declared as something else than JSON."""


class PreconditionFailed(TitanicError):
    """What is there is not what If-Match names, or is what If-None-Match names."""


class IdempotencyConflict(TitanicError):
    """The Idempotency-Key was used before with another body."""


class TokenRequired(TitanicError):
    """Writing needs a bearer token that this request does not carry."""


class TooManyRequests(TitanicError):
    """The client's address has used up its minute."""

    retry_after_seconds = 60


class DatabaseUnavailable(TitanicError):
    """The database did not answer in time; nothing was written."""


class OutcomeUnknown(DatabaseUnavailable):
    """The database was lost during a write: it may have happened or not."""


class NotReady(TitanicError):
    """The process should get no traffic now."""


class InternalError(TitanicError):
    """A defect of the service; what happened is in its log under the request id."""


class Kind(NamedTuple):
    """What HTTP says for an error: status code, the slug of its type URI, its title."""

    status: int
    slug: str
    title: str


REGISTRY: dict[type[TitanicError], Kind] = {
    MalformedBody: Kind(400, "malformed-body", "The body is malformed"),
    InvalidQuery: Kind(400, "invalid-query", "A query parameter is not valid"),
    ListTooLong: Kind(400, "list-too-long", "The list is too long for one answer"),
    InvalidHeader: Kind(400, "invalid-header", "A header is not valid"),
    TokenRequired: Kind(401, "token-required", "Writing needs a token"),
    MetricsRefused: Kind(403, "metrics-refused", "The metrics are not for this client"),
    PersonNotFound: Kind(404, "person-not-found", "There is no such person"),
    RouteNotFound: Kind(404, "not-found", "There is nothing here"),
    MethodNotAllowed: Kind(405, "method-not-allowed", "The method is not offered here"),
    NotAcceptable: Kind(406, "not-acceptable", "None of the accepted media types is offered"),
    BodyTooSlow: Kind(408, "body-too-slow", "The body did not arrive in time"),
    IdempotencyConflict: Kind(409, "idempotency-conflict", "The Idempotency-Key was used for another request"),
    PreconditionFailed: Kind(412, "precondition-failed", "A precondition does not hold"),
    BodyTooLarge: Kind(413, "body-too-large", "The body is too large"),
    UnsupportedMediaType: Kind(415, "unsupported-media-type", "The body must be JSON"),
    InvalidPerson: Kind(422, "invalid-person", "The person is not valid"),
    TooManyRequests: Kind(429, "too-many-requests", "Too many requests"),
    InternalError: Kind(500, "internal-error", "The service failed"),
    DatabaseUnavailable: Kind(503, "database-unavailable", "The database does not answer"),
    OutcomeUnknown: Kind(503, "outcome-unknown", "The database was lost during the write"),
    NotReady: Kind(503, "not-ready", "Not ready for traffic"),
}

TYPE_PREFIX = "urn:titanic:problem:"
PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_SECONDS = 1

STATUS_LINES = {
    200: "200 OK",
    201: "201 Created",
    204: "204 No Content",
    304: "304 Not Modified",
    400: "400 Bad Request",
    401: "401 Unauthorized",
    403: "403 Forbidden",
    404: "404 Not Found",
    405: "405 Method Not Allowed",
    406: "406 Not Acceptable",
    408: "408 Request Timeout",
    409: "409 Conflict",
    412: "412 Precondition Failed",
    413: "413 Content Too Large",
    415: "415 Unsupported Media Type",
    422: "422 Unprocessable Content",
    429: "429 Too Many Requests",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}


@dataclass(frozen=True)
class Answer:
    """A finished response: status code, body bytes and headers, independent of the framework that sends it.

    ``sent``, where there is one, is called when the client has the body, or never will.
    """

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]
    sent: Callable[[], None] | None = None


def answer_for(error: TitanicError) -> Answer:
    """The problem document for an error of the registry."""
    kind = REGISTRY[type(error)]
    document = {
        "type": TYPE_PREFIX + kind.slug,
        "title": kind.title,
        "status": kind.status,
        "detail": error.detail,
        "errors": [fault._asdict() for fault in error.faults],
    }
    # Pure ASCII, so that whatever the client sent (a lone surrogate too) can be quoted back to it.
    body = json.dumps(document).encode("ascii")
    return Answer(kind.status, body, (("Content-Type", PROBLEM_JSON), *_extra_headers(error, kind.status)))


def _extra_headers(error: TitanicError, status: int) -> tuple[tuple[str, str], ...]:
    if isinstance(error, MethodNotAllowed):
        return (("Allow", error.allow),)
    if isinstance(error, TooManyRequests):
        return (("Retry-After", str(error.retry_after_seconds)),)
    if status == 401:
        return (("WWW-Authenticate", 'Bearer realm="titanic"'),)
    if status == 503:
        return (("Retry-After", str(RETRY_AFTER_SECONDS)),)
    return ()
