"""The one WSGI layer that every request goes through: request id, access log, metrics, headers that harden."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.registry import REGISTRY as PROCESS_REGISTRY

from titanic_api import __version__
from titanic_api.config import Settings
from titanic_api.errors import Answer, Fault, InternalError, answer_for
from titanic_api.logs import JsonLines
from titanic_api.request_parsing import Clients, Environ
from titanic_api.responses import Application, StartResponse, send

log = logging.getLogger(__name__)

# Set by whoever answers a request, read by the layer around it.
ROUTE = "titanic.route"
REQUEST_ID = "titanic.request_id"

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
PROBES = frozenset({"/healthz", "/health", "/readyz", "/ready"})
SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LOGGED_PATH_LENGTH = 256
STDOUT = 1
SAMPLE_SECONDS = 0.5

HARDENING = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)

requests_total = Counter("titanic_http_requests", "Requests answered", ["method", "route", "status"])
errors_total = Counter("titanic_http_errors", "Requests answered with a 5xx status", ["method", "route"])
duration_seconds = Histogram(
    "titanic_http_request_duration_seconds", "Time to answer a request", ["method", "route"], buckets=BUCKETS
)
pool_in_use = Gauge("titanic_database_pool_in_use", "Pooled connections in use", multiprocess_mode="livesum")
pool_size = Gauge("titanic_database_pool_size", "Pooled connections allowed", multiprocess_mode="livesum")
build_info = Gauge(
    "titanic_build_info", "Always 1; what runs is in the labels", ["version", "release"], multiprocess_mode="livemax"
)


def metrics_text() -> bytes:
    """What all workers have counted, in Prometheus's text format; this one alone where their files cannot be read."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(PROCESS_REGISTRY)
    registry = CollectorRegistry()
    try:
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    except (OSError, ValueError, struct.error) as error:  # the directory has gone, or holds what is no file of metrics
        log.warning("metrics of one worker alone are told: %s", error)
        return generate_latest(PROCESS_REGISTRY)


def sample(gauge: Gauge, value: Callable[[], float]) -> None:
    """Keep a gauge at a value that changes too often for every change to be written."""

    def keep() -> None:
        while True:
            gauge.set(value())
            time.sleep(SAMPLE_SECONDS)

    threading.Thread(target=keep, daemon=True).start()


def internal_error(environ: Environ) -> Answer:
    """The answer to an exception that is being handled, which goes to the log and not to the client."""
    request_id = environ.get(REQUEST_ID, "")
    log.exception("request %s failed", request_id)  # noqa: LOG004 (the caller is handling it)
    return answer_for(InternalError(Fault("server", f"failed; its log has the reason under request id {request_id}")))


class Observability:
    """WSGI middleware. Counts, times and logs each request once, when its answer is complete."""

    def __init__(self, application: Application, settings: Settings, clients: Clients) -> None:
        self._application = application
        self._clients = clients
        self._level = logging.getLevelNamesMapping()[settings.log_level.upper()]
        self._children: dict[tuple[str, str, str], tuple[Any, Any, Any, str]] = {}
        self._second = (0, "")
        build_info.labels(__version__, settings.release).set(1)
        pool_size.set(settings.pool_size)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        started = time.perf_counter()
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        if not SAFE_REQUEST_ID.fullmatch(request_id):
            request_id = uuid4().hex
        environ[REQUEST_ID] = request_id
        sent = ["500", "-"]

        def observed(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            sent[0] = status[:3]
            given = dict(headers)
            sent[1] = given.get("Content-Length", "-")
            headers.append(("X-Request-ID", request_id))
            # Pages say themselves what they may load; everything else may load nothing.
            headers.extend(extra for extra in HARDENING if extra[0] not in given)
            return start_response(status, headers, *exc_info)

        try:
            return self._application(environ, observed)
        except Exception:  # noqa: BLE001 (whatever it is, the client gets an answer and the log the reason)
            return send(internal_error(environ), environ, observed)
        finally:
            self._record(environ, sent[0], sent[1], time.perf_counter() - started, request_id)

    def _record(self, environ: Environ, status: str, length: str, seconds: float, request_id: str) -> None:
        method = environ["REQUEST_METHOD"]
        route = environ.get(ROUTE, "unmatched")
        label = method if method in METHODS else "OTHER"
        children = self._children.get((label, route, status))
        if children is None:
            errors = errors_total.labels(label, route) if status >= "500" else None
            severity = logging.ERROR if errors else logging.DEBUG if route in PROBES else logging.INFO
            children = (
                requests_total.labels(label, route, status),
                duration_seconds.labels(label, route),
                errors,
                logging.getLevelName(severity).lower() if severity >= self._level else "",
            )
            self._children[label, route, status] = children
        requests, duration, errors, level = children
        requests.inc()
        duration.observe(seconds)
        if errors is not None:
            errors.inc()
        if level:
            self._write(environ, level, method, route, status, length, seconds, request_id)

    def _write(
        self,
        environ: Environ,
        level: str,
        method: str,
        route: str,
        status: str,
        length: str,
        seconds: float,
        request_id: str,
    ) -> None:
        now = time.time()
        second = int(now)
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        # Whatever a client chose is quoted to ASCII, so that it cannot begin a line of its own. No query string, no
        # header and no body is logged: those may hold secrets.
        line = (
            f'{{"time":"{self._second[1]}.{int(now % 1 * 1000):03d}Z",'
            f'"level":"{level}","message":"request",'
            f'"request_id":"{request_id}","method":{json.dumps(method[:32])},'
            f'"path":{json.dumps(environ.get("PATH_INFO", "")[:LOGGED_PATH_LENGTH])},"route":{json.dumps(route)},'
            f'"status":{status},"duration_ms":{seconds * 1000:.3f},"bytes":{length if length.isdigit() else "null"},'
            f'"client":{json.dumps(self._clients.address(environ))}}}\n'
        )
        # One write, so that the lines of several workers do not mix. An error means that whoever read the log has gone;
        # the requests matter more.
        with contextlib.suppress(OSError):
            os.write(STDOUT, line.encode("ascii"))


def log_to_stderr(level: str) -> None:
    """Send every logger's lines to stderr, as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    threading.excepthook = lambda arguments: log.error("thread failed", exc_info=arguments.exc_value)
