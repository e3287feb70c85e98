"""Rate limiting: so many requests a minute from one client address, counted over all workers, or all on a host."""

from __future__ import annotations

import time
from collections.abc import Iterable
from hashlib import blake2b
from mmap import mmap

from titanic_api.errors import Fault, TooManyRequests, answer_for
from titanic_api.request_parsing import Clients, Environ
from titanic_api.responses import Application, StartResponse, send
from titanic_api.shared_counters import COUNTER, COUNTERS

# Probes and metrics must answer however busy their neighbour is.
EXEMPT = frozenset({"/healthz", "/health", "/readyz", "/ready", "/metrics", "/version"})


class RateLimit:
    """WSGI middleware that refuses what one address sends beyond ``per_minute`` with 429."""

    def __init__(self, application: Application, per_minute: int, clients: Clients, counters: mmap) -> None:
        self._application = application
        self._clients = clients
        self._per_minute = per_minute
        self._counters = counters

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, or refuse it."""
        if environ["PATH_INFO"] in EXEMPT:
            return self._application(environ, start_response)
        now = time.time()
        if self._count(self._clients.address(environ), int(now // 60)) <= self._per_minute:
            return self._application(environ, start_response)
        error = TooManyRequests(Fault("client", f"has sent more than {self._per_minute} requests in this minute"))
        error.retry_after_seconds = int(60 - now % 60) + 1
        return send(answer_for(error), environ, start_response)

    def _count(self, client: str, minute: int) -> int:
        digest = blake2b(client.encode("utf-8", "replace"), digest_size=4).digest()
        offset = int.from_bytes(digest, "big") % COUNTERS * COUNTER.size
        counted_minute, count = COUNTER.unpack_from(self._counters, offset)
        count = count + 1 if counted_minute == minute else 1
        COUNTER.pack_into(self._counters, offset, minute, count)
        return int(count)
