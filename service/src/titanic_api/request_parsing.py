"""What the operations need of a WSGI environment: headers, and a body that is bounded in size and in time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, ClassVar

import gevent

from titanic_api.config import DIRECT, Network
from titanic_api.errors import BodyTooLarge, BodyTooSlow, Fault, MalformedBody

Environ = dict[str, Any]
PEERS = 1024
ADDRESS_LENGTH = 64
# Bodies that a worker waits for at once. Of its thousand connections these must leave enough for everybody else.
MAX_ARRIVING = 400


def header(environ: Environ, name: str) -> str | None:
    """A request header, or None."""
    value = environ.get("HTTP_" + name.upper().replace("-", "_"))
    return None if value is None else str(value)


class Clients:
    """Tells whose request it is: the peer's, or that of the client whom a trusted proxy speaks for."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._networks = trusted
        self._trusts = lru_cache(PEERS)(self._is_trusted)

    def may_scrape(self, environ: Environ, allowed: Sequence[Network | str]) -> bool:
        """Whether the client is one of ``allowed``. Whom an unknown proxy speaks for is nobody who is allowed."""
        peer: str = environ.get("REMOTE_ADDR", "")
        if "HTTP_X_FORWARDED_FOR" not in environ:
            return not peer or DIRECT in allowed or _is_in(peer, allowed)
        return (not peer or self._trusts(peer)) and _is_in(self.address(environ), allowed)

    def address(self, environ: Environ) -> str:
        """The client's address. A proxy before the trusted one may have written any other entry."""
        peer: str = environ.get("REMOTE_ADDR", "")
        if peer and not self._trusts(peer):
            return peer
        return str(environ.get("HTTP_X_FORWARDED_FOR", "")).rpartition(",")[2].strip()[:ADDRESS_LENGTH] or peer

    def _is_trusted(self, peer: str) -> bool:
        return _is_in(peer, self._networks)


def _is_in(address: str, networks: Sequence[Network | str]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks if not isinstance(network, str))


class Arrival:
    """A body that a greenlet waits for. One beyond ``MAX_ARRIVING`` has the one that began first given up at once."""

    under_way: ClassVar[dict[Arrival, None]] = {}

    def __init__(self, slow: gevent.Timeout) -> None:
        self._slow = slow
        self._throw = gevent.getcurrent().throw
        self._given_up: Any = None

    def __enter__(self) -> None:
        if len(self.under_way) >= MAX_ARRIVING:
            next(iter(self.under_way)).give_up()
        self.under_way[self] = None

    def give_up(self) -> None:
        """End it as its timer would: from the hub, while the greenlet waits for the body and for nothing else."""
        del self.under_way[self]
        self._given_up = gevent.get_hub().loop.run_callback(self._throw, self._slow)

    def __exit__(self, *_: object) -> None:
        self.under_way.pop(self, None)
        if self._given_up is not None:
            self._given_up.stop()


def read_body(environ: Environ, limit: int, seconds: float) -> bytes:
    """The whole body. Raises BodyTooLarge past ``limit`` bytes, BodyTooSlow after ``seconds``, MalformedBody."""
    length = _declared_length(environ)
    if length is not None and length > limit:
        raise _too_large(limit)
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if length is None and coding is None:
        return b""
    if coding is not None and coding.lower() != "chunked":
        # gunicorn takes a body for plain that is said to be compressed besides.
        raise MalformedBody(Fault("Transfer-Encoding", "must be chunked, or left out"))
    slow = gevent.Timeout(seconds)
    try:
        with slow, Arrival(slow):
            body: bytes = environ["wsgi.input"].read(limit + 1 if length is None else length)
    except gevent.Timeout as timeout:
        if timeout is not slow:
            raise
        reason = f"did not arrive within {seconds:g} seconds, or while too many others began"
        raise BodyTooSlow(Fault("body", reason)) from None
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
