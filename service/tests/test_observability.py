"""Logs, request ids, metrics over several workers, the version: what operators see."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from service.tests.lab import PERSON, Serve, Service
from service.tests.test_people import problem
from titanic_api import __version__

FIELDS = {
    "time",
    "level",
    "message",
    "request_id",
    "method",
    "path",
    "route",
    "status",
    "duration_ms",
    "bytes",
    "client",
}
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


def lines(service: Service, count: int) -> list[dict[str, object]]:
    """The access log, once it has this many lines."""
    deadline = time.monotonic() + 5
    while len(service.output.splitlines()) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return service.log


def test_one_json_line_a_request(serve: Serve) -> None:
    service = serve()
    before = len(service.log)
    uuid = service.get("/people").json()[0]["uuid"]
    service.get(f"/people/{uuid}")
    service.get("/people?q=secret-in-a-query")
    service.get("/people/nobody")
    service("DELETE", "/nope")
    service.post({**PERSON, "name": "secret-in-a-body"}, Authorization="Bearer secret-in-a-header")
    log = lines(service, before + 6)[before:]
    assert [set(line) for line in log] == [FIELDS] * 6
    assert [(line["method"], line["route"], line["status"]) for line in log] == [
        ("GET", "/people", 200),
        ("GET", "/people/{uuid}", 200),
        ("GET", "/people", 200),
        ("GET", "/people/{uuid}", 404),
        ("DELETE", "unmatched", 404),
        ("POST", "/people", 201),
    ]
    assert log[1]["path"] == f"/people/{uuid}"
    assert all(isinstance(line["duration_ms"], float) and 0 < line["duration_ms"] < 5000 for line in log)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line["time"])) for line in log)
    assert "secret" not in service.output + service.errors


@pytest.mark.parametrize(("level", "seen"), [("info", []), ("debug", ["/healthz", "/readyz", "/health", "/ready"])])
def test_probes_that_succeed_are_for_debugging(serve: Serve, level: str, seen: list[str]) -> None:
    """A reverse proxy asks several times a second, and would push what people asked out of the log."""
    service = serve(LOG_LEVEL=level)
    before = len(service.log)
    for path in ("/healthz", "/readyz", "/health", "/ready", "/version"):
        assert service.get(path).ok
    assert [line["route"] for line in lines(service, before + len(seen) + 1)[before:]] == [*seen, "/version"]


def test_request_ids(serve: Serve) -> None:
    service = serve(WORKERS=1)
    given = service.get("/people?limit=1", headers={"X-Request-ID": "abc-1.2:3"})
    assert given.headers["X-Request-ID"] == "abc-1.2:3"
    assert service.log[-1]["request_id"] == "abc-1.2:3"
    new = [service.get("/healthz").headers["X-Request-ID"] for _ in range(3)]
    assert len(set(new)) == 3
    for bad in ("", "a b", "x" * 129, '"', "{}", "\xe9", "a\tb"):
        answer = service.get("/healthz", headers={"X-Request-ID": bad.encode("latin-1")})
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
    for path in ("/people/nobody", "/nope", "/people?x=1"):
        assert service.get(path, headers={"X-Request-ID": "e-1"}).headers["X-Request-ID"] == "e-1"


def test_no_line_can_be_forged(serve: Serve) -> None:
    service = serve(WORKERS=1)
    before = len(service.log)
    service.get("/people/%0a%7b%22level%22:%22error%22%7d%0d%0a%1b%5b31m")
    service.get("/%22%7d%0a")
    service("GET", "/" + "x" * 3000)
    log = lines(service, before + 3)
    assert len(log) == before + 3
    assert all(len(json.dumps(line)) < 1500 for line in log)


def samples(service: Service) -> dict[tuple[str, str], float]:
    text = service.get("/metrics").text
    found = [SAMPLE.match(line) for line in text.splitlines() if not line.startswith("#")]
    return {(match[1], match[2] or ""): float(match[3]) for match in found if match}


def test_metrics_are_right_with_several_workers(serve: Serve) -> None:
    service = serve(WORKERS=3, RELEASE="r-42")
    threads = [threading.Thread(target=lambda: [requests.get(service.url + "/people/x", timeout=10) for _ in range(10)])
               for _ in range(6)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 60
    while samples(service)["titanic_database_pool_size", ""] != 12 and time.monotonic() < deadline:
        time.sleep(0.2)  # a worker has still to load the application
    served_by = {line["request_id"] for line in service.log}
    assert len(served_by) >= 60
    for _ in range(5):  # whichever worker answers
        found = samples(service)
        route = 'method="GET",route="/people/{uuid}"'
        assert found["titanic_http_requests_total", route + ',status="404"'] == 60
        assert found["titanic_http_request_duration_seconds_count", route] == 60
        assert found["titanic_http_request_duration_seconds_bucket", 'le="+Inf",' + route] == 60
        assert found["titanic_build_info", f'release="r-42",version="{__version__}"'] == 1
        assert found["titanic_database_pool_size", ""] == 12
    assert service.get("/metrics").headers["Content-Type"].startswith("text/plain")


def test_errors_are_counted(serve: Serve, database: object) -> None:
    service = serve(DRAIN_FILE="/proc/self/status", WORKERS=1)
    for _ in range(3):
        assert service.get("/readyz").status_code == 503
    assert samples(service)["titanic_http_errors_total", 'method="GET",route="/readyz"'] == 3
    assert service.log[-2]["level"] == "error"


def test_counts_survive_a_dead_worker(serve: Serve) -> None:
    service = serve(WORKERS=2)
    for _ in range(40):
        requests.get(service.url + "/people/x", timeout=10)
    victim = service.workers[0]
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while victim in service.workers or len(service.workers) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    found = samples(service)
    while found["titanic_database_pool_size", ""] != 8 and time.monotonic() < deadline:
        time.sleep(0.2)  # the new worker has still to load the application
        found = samples(service)
    assert found["titanic_database_pool_size", ""] == 8
    assert found["titanic_http_requests_total", 'method="GET",route="/people/{uuid}",status="404"'] == 40


def become_a_file(place: Path) -> None:
    shutil.rmtree(place)
    place.write_text("")


def fill_with_junk(place: Path) -> None:
    (place / "counter_1.db").write_bytes(b"\xff" * 100)
    (place / "histogram_1.db").touch()


@pytest.mark.parametrize("harm", [shutil.rmtree, become_a_file, fill_with_junk])
def test_a_spoilt_directory_for_metrics_ends_nothing(
    serve: Serve, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """A worker that cannot start ends all of gunicorn, so the next one must do without its files."""
    service = serve(WORKERS=1, METRICS_DIRECTORY=tmp_path / "metrics")
    (victim,) = service.workers
    harm(tmp_path / "metrics")
    if harm is fill_with_junk:
        (tmp_path / "metrics" / f"gauge_livesum_{victim}.db").unlink()
        (tmp_path / "metrics" / f"gauge_livesum_{victim}.db").mkdir()
    assert "titanic_http_requests_total" in service.get("/metrics").text
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while service.workers in ([], [victim]):
        assert time.monotonic() < deadline
        assert service.process.poll() is None, service.errors[-2000:]
        time.sleep(0.1)
    assert requests.get(service.url + "/people?limit=1", timeout=60).ok
    assert "titanic_http_requests_total" in service.get("/metrics").text
    assert not [line for line in lines(service, 1) if int(str(line["status"])) >= 500]


@pytest.mark.parametrize(("level", "logged"), [("debug", True), ("info", True), ("warning", False), ("error", False)])
def test_log_level(serve: Serve, level: str, logged: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = serve(LOG_LEVEL=level, WORKERS=1, BIND=f"127.0.0.1:{port}")
    service.get("/people?limit=1")
    assert bool([line for line in service.log if line["route"] == "/people"]) is logged


def test_version(serve: Serve) -> None:
    service = serve(RELEASE="2026-11-22.1", WORKERS=1)
    assert service.get("/version").json() == {"version": __version__, "release": "2026-11-22.1", "schema": "0003"}


@pytest.mark.parametrize(
    ("trusted", "forwarded", "client"),
    [
        ("127.0.0.0/8", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.0/8,::1/128", "198.51.100.9, 192.0.2.7", "192.0.2.7"),  # the proxy's own word is the last
        ("127.0.0.0/8", "", "127.0.0.1"),
        ("0.0.0.0/0", "x" * 99, "x" * 64),
        ("10.0.0.0/8", "192.0.2.7", "127.0.0.1"),
    ],
)
def test_the_client_is_whom_a_trusted_proxy_speaks_for(serve: Serve, trusted: str, forwarded: str, client: str) -> None:
    service = serve(TRUSTED_PROXIES=trusted)
    before = len(service.log)
    service.get("/people/x", headers={"X-Forwarded-For": forwarded})
    assert lines(service, before + 1)[before]["client"] == client


@pytest.mark.parametrize(
    ("settings", "statuses"),
    [
        # What a client wrote itself is not the last that is said of it.
        ({}, {"": 200, "::1": 200, "127.0.0.1, 192.0.2.7": 403, "127.0.0.1:80": 403, "localhost": 403}),
        ({"METRICS_FROM": "192.0.2.0/24,direct"}, {"": 200, "192.0.2.7": 200, "127.0.0.1": 403}),
        ({"METRICS_FROM": "192.0.2.0/24"}, {"": 403, "192.0.2.7": 200}),
        # Nobody believes who says so.
        (
            {"METRICS_FROM": "127.0.0.0/8,192.0.2.0/24,direct", "TRUSTED_PROXIES": "10.0.0.0/8"},
            {"": 200, "192.0.2.7": 403},
        ),
    ],
)
def test_metrics_are_for_who_may_have_them(serve: Serve, settings: dict[str, str], statuses: dict[str, int]) -> None:
    service = serve(WORKERS=1, **settings)
    for forwarded, status in statuses.items():
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        for method, path in (("GET", "/metrics"), ("HEAD", "/metrics"), ("GET", "/%6detrics")):
            answer = service(method, path, headers=headers)
            assert (forwarded, answer.status_code) == (forwarded, status)
        assert ("titanic_http" in answer.text) == (status == 200)
        assert answer.headers["X-Request-ID"]
        if status == 403:
            problem(answer, 403, "client")


def test_metrics_on_a_socket_are_for_whom_the_proxy_speaks_for(serve: Serve, tmp_path: Path) -> None:
    place = tmp_path / "api.sock"
    serve(WORKERS=1, BIND=f"unix:{place}")
    for more, status in (("", 200), ("X-Forwarded-For: 127.0.0.1\r\n", 200), ("X-Forwarded-For: 192.0.2.7\r\n", 403)):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(place))
            connection.sendall(f"GET /metrics HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
            assert connection.recv(12) == f"HTTP/1.1 {status}".encode()


def test_what_the_server_says_of_itself_is_json_too(serve: Serve) -> None:
    service = serve()
    service.stop()
    said = [json.loads(line) for line in service.errors.splitlines()]
    assert any(line["message"].startswith("Booting worker") for line in said)
    assert any(line["message"].startswith("Shutting down") for line in said)
    assert {"time", "level", "message", "logger", "pid"} == set.union(*(set(line) for line in said))


def test_a_socket_is_for_its_account_alone(serve: Serve, tmp_path: Path) -> None:
    place = tmp_path / "socket"
    service = serve(BIND=f"unix:{place}")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    # Its workers are not up yet: what they are told meanwhile is not forgotten until the time for answers is over.
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began < 10


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory to another group")
def test_a_socket_is_for_the_group_that_its_directory_is_for(serve: Serve, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o750)
    os.chown(place, -1, 10002)
    serve(BIND=f"unix:{place}/socket")
    assert (place / "socket").stat().st_mode & 0o777 == 0o666
