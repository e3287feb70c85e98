"""Large responses under way: few at a time, so that clients who read slowly hold little of a worker's memory."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable, Iterator
from time import monotonic

import gevent

from titanic_api.db import FairSemaphore
from titanic_api.errors import Answer, DatabaseUnavailable, Fault

# The length of a chunk, and of the shortest body that is large: a shorter one fits into what the system keeps for a
# connection, so that its client need not be waited for.
CHUNK_BYTES = 1 << 20
MAX_AT_A_TIME = 2
CHUNK_SECONDS = 30.0


class BodyChunks:
    """A body that is sent in chunks, each of which its client has to take in time."""

    def __init__(self, body: bytes, sent: Callable[[], None]) -> None:
        self._body = memoryview(body)
        self._sent = sent
        self._slow = gevent.Timeout(None)

    def __iter__(self) -> Iterator[bytes]:
        """The chunks. While the server sends one it gets a reset connection if that takes too long."""
        reset = ConnectionResetError(errno.ECONNRESET, "the client reads too slowly")
        for start in range(0, len(self._body), CHUNK_BYTES):
            self._slow.close()
            self._slow = gevent.Timeout.start_new(CHUNK_SECONDS, reset)
            yield bytes(self._body[start : start + CHUNK_BYTES])

    def close(self) -> None:
        """Stop the clock and give the place back, as WSGI asks at the end."""
        self._slow.close()
        self._sent()


class LargeResponses:
    """Counts the large bodies that a worker is sending; one that several clients are sent counts once."""

    def __init__(self) -> None:
        self._slots = FairSemaphore(MAX_AT_A_TIME)
        self._clients: dict[int, int] = {}

    def hold(self, answer: Answer, deadline: float) -> Answer:
        """The answer, which gives its place back when it is sent. Raises DatabaseUnavailable if none is to be had."""
        key = id(answer.body)
        if len(answer.body) < CHUNK_BYTES:
            return answer
        if key not in self._clients:
            if not self._slots.acquire(max(0.0, deadline - monotonic())):
                what = "are being sent to clients who read slowly; try again, or ask for pages"
                raise DatabaseUnavailable(Fault("list", f"other long lists {what}"))
            if key in self._clients:
                self._slots.release()  # somebody else has come with it meanwhile
        self._clients[key] = self._clients.get(key, 0) + 1
        return dataclasses.replace(answer, sent=lambda: self._leave(key))

    def _leave(self, key: int) -> None:
        self._clients[key] -= 1
        if not self._clients[key]:
            del self._clients[key]
            self._slots.release()
