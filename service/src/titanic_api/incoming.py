"""What the operations need of a WSGI environment: headers, and a body that is bounded in size and in time."""

from __future__ import annotations

from typing import Any

import gevent

from titanic_api.errors import BodyTooLarge, BodyTooSlow, Fault, MalformedBody

Environ = dict[str, Any]


def header(environ: Environ, name: str) -> str | None:
    """A request header, or None."""
    value = environ.get("HTTP_" + name.upper().replace("-", "_"))
    return None if value is None else str(value)


def read_body(environ: Environ, limit: int, seconds: float) -> bytes:
    """The whole body. Raises BodyTooLarge past ``limit`` bytes, BodyTooSlow after ``seconds``, MalformedBody."""
    length = _declared_length(environ)
    if length is not None and length > limit:
        raise _too_large(limit)
    if length is None and environ.get("HTTP_TRANSFER_ENCODING") is None:
        return b""
    slow = gevent.Timeout(seconds)
    try:
        with slow:
            body: bytes = environ["wsgi.input"].read(limit + 1 if length is None else length)
    except gevent.Timeout as timeout:
        if timeout is not slow:
            raise
        raise BodyTooSlow(Fault("body", f"did not arrive within {seconds:g} seconds")) from None
    except Exception as error:  # gunicorn has a dozen kinds of bad framing and no common base for them
        raise MalformedBody(Fault("body", "ended early or is not framed as HTTP asks")) from error
    if len(body) > limit:
        raise _too_large(limit)
    if length is not None and len(body) < length:
        raise MalformedBody(Fault("body", f"ended after {len(body)} of {length} bytes"))
    return body


def _declared_length(environ: Environ) -> int | None:
    text = environ.get("CONTENT_LENGTH") or ""
    return int(text) if text.isascii() and text.isdigit() else None


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(Fault("body", f"must not be longer than {limit} bytes"))
