"""Finished answers as the responses of Flask."""

from __future__ import annotations

from flask import Response

from titanic_api.errors import Answer


def to_response(answer: Answer) -> Response:
    """Flask's response for a finished answer."""
    response = Response(answer.body, status=answer.status)
    del response.headers["Content-Type"]
    for name, value in answer.headers:
        response.headers[name] = value
    if answer.sent is not None:
        response.call_on_close(answer.sent)
    return response
