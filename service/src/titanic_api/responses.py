"""Finished answers as the responses of WSGI and of Flask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Response

from titanic_api.errors import STATUS_LINES, Answer
from titanic_api.large_responses import BodyChunks
from titanic_api.request_parsing import Environ

StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


def send(answer: Answer, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Give a finished answer to the WSGI server; HEAD gets the headers alone."""
    headers = [*answer.headers]
    if answer.status not in (204, 304):
        headers.append(("Content-Length", str(len(answer.body))))
    start_response(STATUS_LINES[answer.status], headers)
    if environ["REQUEST_METHOD"] == "HEAD":
        return []
    return [answer.body] if answer.sent is None else BodyChunks(answer.body, answer.sent)


def to_response(answer: Answer) -> Response:
    """Flask's response for a finished answer."""
    response = Response(answer.body, status=answer.status)
    del response.headers["Content-Type"]
    for name, value in answer.headers:
        response.headers[name] = value
    if answer.sent is not None:
        response.call_on_close(answer.sent)
    return response
