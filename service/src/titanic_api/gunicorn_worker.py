"""gunicorn's gevent workers: both let an answer arrive whose request was not read to its end, one keeps connections."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from gunicorn import util
from gunicorn.workers.ggevent import GeventWorker

from titanic_api.errors import PROBLEM_JSON

# How much of a body that was refused is taken in for its sender to read the answer, and for how long.
LINGER_BYTES = 1 << 20
LINGER_SECONDS = 2.0
# How many have that at once in a worker. In a crowd others may miss their answer, and take no connection from anybody.
MAX_LINGERING = 100
DETAIL_LENGTH = 200
SERVER_ERROR = 500


class Worker(GeventWorker):
    """Closes a connection as RFC 9112, section 9.6, asks, and as gunicorn's other workers do.

    A socket that is closed with unread bytes, or that gets some afterwards, resets the connection. Whoever is still
    sending then may never see the answer: the reverse proxy said 503 to one in 400 of those who were refused a write.
    """

    _lingering = 0

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Answer one request. Raises StopIteration if the connection is to be closed after it, as gunicorn asks."""
        try:
            return super().handle_request(listener_name, req, sock, addr)
        except StopIteration:
            if _has_unread_body(req):
                self._linger(sock)
            raise

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is not HTTP, as a problem."""
        instead: Any = _ProblemInstead(client, str(exc))
        super().handle_error(req, instead, addr, exc)
        self._linger(client)

    def _linger(self, connection: Any) -> None:
        if self._lingering < MAX_LINGERING:
            self._lingering += 1
            try:
                util.close_graceful(connection, timeout=LINGER_SECONDS, max_drain=LINGER_BYTES)
            finally:
                self._lingering -= 1


class _ProblemInstead:
    """The connection of a client to whom gunicorn says in HTML what is wrong: he gets a problem of the same status."""

    def __init__(self, client: Any, detail: str) -> None:
        self._client = client
        self._detail = detail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, page: bytes) -> None:
        """Send what stands for the page."""
        line = page.partition(b"\r\n")[0].decode("ascii")
        status, _, title = line.removeprefix("HTTP/1.1 ").partition(" ")
        # RFC 9457, section 4.2.1: no type of its own, since the status says it all.
        problem = {"type": "about:blank", "title": title, "status": int(status)}
        if int(status) < SERVER_ERROR:
            problem["detail"] = self._detail[:DETAIL_LENGTH]
        body = json.dumps(problem)
        headers = {
            "Connection": "close",
            "Content-Type": PROBLEM_JSON,
            "Content-Length": len(body),
            "X-Request-Id": uuid4().hex,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._client.sendall(f"{line}\r\n{head}\r\n{body}".encode("ascii"))


class ClosingWorker(Worker):
    """Gives each connection one answer, which says that it is the last.

    gunicorn does that by itself at a keepalive of 0, but then waits without a limit for the request: a connection that
    stays silent is there for good, and SIGTERM takes as long as it may.
    """

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Answer the request. Raises StopIteration, as gunicorn asks where a connection is to be closed."""
        req.force_close()
        return super().handle_request(listener_name, req, sock, addr)


def _has_unread_body(request: Any) -> bool:
    """By what gunicorn's readers keep: how many bytes are to come, or a parser until the last chunk has."""
    reader = request.body.reader
    return bool(getattr(reader, "length", 0) or getattr(reader, "parser", None))
