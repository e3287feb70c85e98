"""What happens when things break: the database gone, hung or slow, the pool empty, the process told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from service.tests.lab import APP, PERSON, Database, Postgres, Serve, Service, new_database, running_postgres, serving

LIMIT_SECONDS = 2.0

# Most of these say how long something may take. A stall of a machine with other work is asked about again.
pytestmark = pytest.mark.flaky(reruns=3, reruns_delay=2)


@pytest.fixture
def own_server(binaries: Path) -> Iterator[Database]:
    """A database on a server that only this test uses."""
    with running_postgres(binaries) as server:
        database = new_database(Database(server, "titanic"))
        database.ok("migrate")
        database.ok("seed")
        yield database


def unavailable(service: Service, method: str, path: str, body: object = None) -> None:
    """A request that must be refused as the contract says, within the limit."""
    started = time.monotonic()
    answer = requests.request(method, service.url + path, json=body, timeout=10)
    took = time.monotonic() - started
    assert answer.status_code == 503, answer.text[:300]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
    assert took < LIMIT_SECONDS, f"{method} {path} took {took:.2f} s"


def recovers(service: Service) -> None:
    """Every worker serves again, without a restart."""
    deadline = time.monotonic() + 20
    good = 0
    while good < 10:
        answers = [requests.get(service.url + path, timeout=10) for path in ("/people", "/readyz", "/people?limit=1")]
        good = good + 1 if all(answer.ok for answer in answers) else 0
        assert time.monotonic() < deadline
    assert service.post(PERSON).status_code == 201


def everything_is_503(service: Service, uuid: str) -> None:
    unavailable(service, "GET", "/people")
    unavailable(service, "GET", f"/people/{uuid}")
    unavailable(service, "GET", "/people?limit=1")
    unavailable(service, "POST", "/people", PERSON)
    unavailable(service, "PATCH", f"/people/{uuid}", {"age": 1})
    unavailable(service, "DELETE", f"/people/{uuid}")
    unavailable(service, "GET", "/readyz")
    started = time.monotonic()
    assert requests.get(service.url + "/healthz", timeout=5).status_code == 200
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("warm", [True, False])
def test_a_database_that_is_gone(own_server: Database, warm: bool) -> None:
    with serving(own_server) as service:
        uuid = service.get("/people").json()[0]["uuid"] if warm else "0" * 8 + "-0000-4000-8000-" + "0" * 12
        own_server.server.stop("immediate")
        everything_is_503(service, uuid)
        own_server.server.start()
        recovers(service)


def test_a_password_that_changes_here_before_it_does_there_costs_no_request(
    own_server: Database, tmp_path: Path
) -> None:
    server, file = own_server.server, tmp_path / "password"
    server.sql(f"ALTER ROLE {APP} PASSWORD 'first'")
    (server.home / "data" / "pg_hba.conf").write_text(f"local all {APP} scram-sha-256\nlocal all all trust\n")
    server.sql("SELECT pg_reload_conf()")
    file.write_text("first")

    def answers(service: Service) -> int:
        """On a connection that is made for it."""
        server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{APP}'")
        time.sleep(0.2)
        return service.get("/people?limit=1").status_code

    with serving(own_server, DATABASE_PASSWORD_FILE=file, WORKERS=1) as service:
        assert service.get("/healthz").ok
        file.write_text("second")  # before its first connection to the database, too
        assert answers(service) == 200
        server.sql(f"ALTER ROLE {APP} PASSWORD 'second'")
        assert answers(service) == 200
        file.write_text("third")
        assert answers(service) == 200
        server.sql(f"ALTER ROLE {APP} PASSWORD 'fourth'")
        assert answers(service) == 503


def test_a_service_starts_without_its_database(own_server: Database) -> None:
    own_server.server.stop()
    with serving(own_server) as service:
        assert service.get("/healthz").ok
        assert service.get("/readyz").status_code == 503
        own_server.server.start()
        recovers(service)


def test_a_database_that_hangs(own_server: Database) -> None:
    with serving(own_server) as service:
        uuid = service.get("/people").json()[0]["uuid"]
        for _ in range(10):
            requests.get(service.url + "/people?limit=1", timeout=5)
        stopped = own_server.server.processes()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            threads = [threading.Thread(target=unavailable, args=(service, "GET", "/people")) for _ in range(20)]
            for thread in threads:
                thread.start()
                time.sleep(0.05)
            for thread in threads:
                thread.join()
            everything_is_503(service, uuid)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        recovers(service)


def test_connections_that_died_in_silence_cost_one_wait_and_not_one_each(serve: Serve, database: Database) -> None:
    """As after a network was cut: nobody says goodbye, and whoever asks on an old connection hears nothing."""
    service = serve(WORKERS=1)
    ours = "SELECT pid FROM pg_stat_activity WHERE usename = 'titanic_app' AND datname = %s"
    with database.server.connect(database.name, "titanic_owner") as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")
        asked = [f"{service.url}/people?limit={number}" for number in range(1, 7)]
        threads = [threading.Thread(target=requests.get, args=(url,), kwargs={"timeout": 10}) for url in asked]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 1
        while len(database.sql(ours, (database.name,), user="postgres")) < 7 and time.monotonic() < deadline:
            time.sleep(0.02)
        connection.rollback()
    for thread in threads:
        thread.join()
    silent = [row[0] for row in database.sql(ours, (database.name,), user="postgres")]
    assert len(silent) >= 4
    for pid in silent:
        os.kill(pid, signal.SIGSTOP)
    try:
        urls = [f"{service.url}/people?limit={number}" for number in range(11, 17)]
        statuses = [requests.get(url, timeout=10).status_code for url in urls]
    finally:
        for pid in silent:
            os.kill(pid, signal.SIGCONT)
    assert statuses.count(503) <= 2, "one for the connection that looks whether the cache holds, one for the pool"
    assert statuses[2:] == [200] * 4


def test_an_unknown_outcome_is_no_success(serve: Serve, database: Database) -> None:
    """The server is stopped in the middle of a write; afterwards the write may be there, but nobody was told so."""
    service = serve(WORKERS=1)
    path = service.post(PERSON).headers["Location"]
    with lock(database, path):
        answers: list[requests.Response] = []
        request = threading.Thread(target=lambda: answers.append(service("PUT", path, json={**PERSON, "age": 1})))
        request.start()
        time.sleep(0.4)
        busy = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'titanic_app' AND state = 'active'"
        )
        assert len(database.sql(busy + " AND datname = %s", (database.name,), user="postgres")) == 1
        request.join()
    assert answers[0].status_code == 503
    assert answers[0].json()["type"] == "urn:titanic:problem:outcome-unknown"


@contextlib.contextmanager
def lock(database: Database, path: str) -> Iterator[None]:
    """Hold the row of a person."""
    connection = database.server.connect(database.name, "titanic_owner")
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM people WHERE uuid = %s FOR UPDATE", (path.rpartition("/")[2],))
        try:
            yield
        finally:
            connection.rollback()
            connection.close()


def test_a_locked_person_is_not_waited_for(serve: Serve, database: Database) -> None:
    service = serve()
    path = service.post(PERSON).headers["Location"]
    with lock(database, path):
        unavailable(service, "PATCH", path, {"age": 1})
        unavailable(service, "PUT", path, {**PERSON, "age": 1})
        unavailable(service, "DELETE", path)
        assert service.get(path).ok
    assert service("PATCH", path, json={"age": 2}).json()["age"] == 2


def test_an_empty_pool_is_503(serve: Serve, database: Database) -> None:
    service = serve(POOL_SIZE=2, WORKERS=1)
    path = service.post(PERSON).headers["Location"]
    with lock(database, path):
        threads = [threading.Thread(target=requests.patch, args=(service.url + path,), kwargs={"json": {"age": 3}})]
        threads += [threading.Thread(target=unavailable, args=(service, "PATCH", path, {"age": 1})) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    backends = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'titanic_app' AND datname = %s"
    assert database.sql(backends, (database.name,), user="postgres")[0][0] <= 3  # the pool, and that of the looks
    assert service("PATCH", path, json={"age": 2}).ok


def test_a_statement_has_a_limit(serve: Serve, database: Database) -> None:
    service = serve(STATEMENT_TIMEOUT_SECONDS="0.3", WORKERS=1)
    path = service.post(PERSON).headers["Location"]
    with lock(database, path):
        started = time.monotonic()
        unavailable(service, "PATCH", path, {"age": 1})
        assert time.monotonic() - started < 0.9


def test_no_acknowledged_write_is_lost_in_a_crash(binaries: Path) -> None:
    """Writers go on while the server is killed again and again; whatever was answered 201 is there in the end."""
    with running_postgres(binaries, fsync="on") as server:
        database = new_database(Database(server, "titanic"))
        database.ok("migrate")
        with serving(database) as service:
            acknowledged: list[str] = []
            stop = threading.Event()

            def write() -> None:
                while not stop.is_set():
                    answer = requests.post(service.url + "/people", json=PERSON, timeout=10)
                    assert answer.status_code in (201, 503)
                    if answer.status_code == 201:
                        acknowledged.append(answer.json()["uuid"])

            threads = [threading.Thread(target=write) for _ in range(4)]
            for thread in threads:
                thread.start()
            for _ in range(2):
                time.sleep(1)
                server.stop("immediate")
                server.start()
            time.sleep(1)
            stop.set()
            for thread in threads:
                thread.join()
            recovers(service)
            kept = {row[0] for row in database.sql("SELECT uuid::text FROM people")}
            assert len(acknowledged) > 10
            assert set(acknowledged) <= kept


# Readiness, draining, stopping.


def test_ready_only_with_the_right_schema(postgres: Postgres, serve: Serve, database: Database) -> None:
    service = serve(WORKERS=1)
    answer = service.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "schema": "0003"})
    database.sql("UPDATE alembic_version SET version_num = '0002'")
    assert "0003" in service.get("/readyz").json()["detail"]
    assert service.get("/readyz").status_code == 503
    database.sql("UPDATE alembic_version SET version_num = '0009'")
    assert service.get("/readyz").status_code == 200
    database.sql("UPDATE schema_contract SET oldest_tolerated = '0004'")
    assert service.get("/readyz").status_code == 503
    assert service.get("/ready").status_code == 503
    assert service.get("/health").status_code == 200


def test_not_ready_without_a_schema(empty_database: Database) -> None:
    with serving(empty_database) as service:
        assert service.get("/readyz").status_code == 503
        assert service.get("/people").status_code == 503
        empty_database.ok("migrate")
        assert service.get("/readyz").status_code == 200
        assert service.get("/people").json() == []


def test_drain_file(serve: Serve, tmp_path: Path) -> None:
    drain = tmp_path / "drain"
    service = serve(DRAIN_FILE=drain)
    assert service.get("/readyz").status_code == 200
    drain.touch()
    answer = service.get("/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "draining" in answer.json()["detail"]
    assert [error["field"] for error in answer.json()["errors"]] == ["traffic"]
    assert service.get("/people").status_code == 200
    drain.unlink()
    assert service.get("/readyz").status_code == 200


def test_sigterm_finishes_what_runs(serve: Serve, database: Database) -> None:
    service = serve(WORKERS=1)
    path = service.post(PERSON).headers["Location"]
    answers: list[int] = []
    with lock(database, path):
        request = threading.Thread(
            target=lambda: answers.append(requests.patch(service.url + path, json={"age": 1}, timeout=20).status_code)
        )
        request.start()
        time.sleep(0.3)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.4)
    request.join()
    assert answers == [200]
    assert service.process.wait(30) == 0


def test_sigterm_is_quick_while_idle_connections_are_open(serve: Serve) -> None:
    service = serve()
    assert service.get("/healthz").ok
    started = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(30) == 0
    assert time.monotonic() - started < 6


# Connections.


def until_closed(connection: socket.socket) -> bytes:
    """Everything that comes before the service closes the connection. Raises TimeoutError if it does not."""
    received = b""
    while piece := connection.recv(1 << 20):
        received += piece
    return received


@pytest.mark.parametrize(("chosen", "seconds"), [({}, 2), ({"KEEPALIVE_SECONDS": 4}, 4)])
def test_a_connection_is_kept(serve: Serve, chosen: dict[str, int], seconds: int) -> None:
    with serve(**chosen, WORKERS=1).connect(20) as connection:
        for _ in range(2):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            received = connection.recv(65536)
            while not received.endswith(b"}\n"):
                received += connection.recv(65536)
            assert b"\r\nConnection: keep-alive\r\n" in received
        started = time.monotonic()
        assert until_closed(connection) == b""
        assert seconds - 0.5 < time.monotonic() - started < seconds + 1.5


def test_no_connection_is_kept(serve: Serve) -> None:
    """Whatever the answer is, and whatever the client asks for."""
    service = serve(KEEPALIVE_SECONDS=0, WORKERS=1)
    tag = service.get("/people").headers["ETag"]
    person = json.dumps(PERSON)
    sending = f"Content-Type: application/json\r\nContent-Length: {len(person)}\r\n\r\n{person}"
    for request, status in {
        "GET /people HTTP/1.1\r\nConnection: keep-alive\r\n\r\n": 200,
        "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n": 200,
        "HEAD /people HTTP/1.1\r\n\r\n": 200,
        f"GET /people HTTP/1.1\r\nIf-None-Match: {tag}\r\n\r\n": 304,
        f"POST /people HTTP/1.1\r\n{sending}": 201,
        f"PUT /people HTTP/1.1\r\n{sending}": 405,
        "POST /people HTTP/1.1\r\nContent-Length: 4000\r\n\r\n": 415,
        "GET /nowhere HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n": 404,
        "NONSENSE\r\n\r\n": 400,
    }.items():
        with service.connect(10) as connection:
            connection.sendall(request.replace("\r\n", "\r\nHost: x\r\n", 1).encode())
            started = time.monotonic()
            received = until_closed(connection)
            took = time.monotonic() - started
        assert int(received[9:12]) == status, request
        assert received.count(b"HTTP/1.") == 1, request
        assert b"\r\nConnection: close\r\n" in received, request
        assert took < 1, f"{request}: as by a connection that is kept for a while"


def test_where_no_connection_is_kept_a_silent_one_is_not_either(serve: Serve) -> None:
    service = serve(KEEPALIVE_SECONDS=0)
    with service.connect(20) as silent, service.connect(20) as half:
        half.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert until_closed(silent) == b""
        assert until_closed(half) == b""


def test_who_connects_and_then_has_to_wait_for_a_processor_is_answered(serve: Serve) -> None:
    with serve(KEEPALIVE_SECONDS=0).connect(20) as connection:
        time.sleep(4)
        connection.sendall(b"GET /people?limit=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert until_closed(connection).startswith(b"HTTP/1.1 200 OK")


def test_a_unix_socket(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with serving(database, BIND=f"unix:{path}", WORKERS=1), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET /people?limit=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_a_slow_body_is_cut_off(serve: Serve) -> None:
    service = serve(REQUEST_TIMEOUT_SECONDS=1, WORKERS=1)
    with service.connect(10) as connection:
        head = "POST /people HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n{"
        connection.sendall(head.encode())
        started = time.monotonic()
        received = b""
        with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
            connection.settimeout(0.2)
            for _ in range(40):
                connection.sendall(b" ")
                with contextlib.suppress(TimeoutError):
                    piece = connection.recv(65536)
                    received += piece
                    if not piece:
                        break
        assert time.monotonic() - started < 5, "one second, and two in which gunicorn waits for the rest"
    assert received.startswith(b"HTTP/1.1 408")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["errors"][0]["field"] == "body"


def test_a_crowd_whose_bodies_do_not_come_keeps_nobody_from_being_answered(serve: Serve) -> None:
    service = serve(WORKERS=1)
    head = "POST /people HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n{"
    with many_files(4096), contextlib.ExitStack() as opened:
        crowd = []
        for _ in range(1300):  # a worker takes 1000 connections
            crowd.append(opened.enter_context(service.connect(10)))
            crowd[-1].sendall(head.encode())
        started = time.monotonic()
        for _ in range(3):
            assert requests.get(service.url + "/people?limit=1", timeout=10).ok
            assert requests.post(service.url + "/people", json=PERSON, timeout=10).status_code == 201
        assert time.monotonic() - started < 5
        assert crowd[0].recv(12) == b"HTTP/1.1 408"
        crowd[-1].sendall(json.dumps(PERSON)[1:].ljust(199).encode())
        assert crowd[-1].recv(12) == b"HTTP/1.1 201", "who came last had every chance"


@contextlib.contextmanager
def many_files(number: int) -> Iterator[None]:
    """As many may be open in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="a small disk can be made by root only")


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of this size, for as long as the block lasts."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@ROOT_ONLY
@pytest.mark.parametrize("before", [True, False])
def test_a_full_disk_for_metrics_ends_no_worker(database: Database, tmp_path: Path, before: bool) -> None:
    """Full before the service starts, or while it serves: requests are answered, and counted where there is room."""
    with small_disk(tmp_path, "4m"):
        ballast = tmp_path / "ballast"
        if before:
            fill(ballast)
        with serving(database, METRICS_DIRECTORY=tmp_path / "metrics", WORKERS=2) as service:
            workers = sorted(service.workers)
            if not before:
                counted = 'titanic_http_requests_total{method="GET",route="/healthz",status="200"}'
                assert counted in service.get("/metrics").text
            fill(ballast)
            for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"):
                for path in ("/", "/people?limit=1", "/people/nobody", "/openapi.json", "/nowhere", "/version"):
                    for _ in range(4):
                        assert service(method, path).status_code < 500
            assert sorted(service.workers) == workers
            assert service.get("/metrics").ok
            assert not before or "counted in memory alone" in service.errors


@ROOT_ONLY
@pytest.mark.parametrize("before", [True, False])
def test_a_full_disk_for_the_log_ends_and_slows_nothing(database: Database, tmp_path: Path, before: bool) -> None:
    """Full before the service starts, or while it serves: lines of all three loggers are lost, and nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        bind = f"127.0.0.1:{free.getsockname()[1]}"
    metrics = tmp_path / "metrics"
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, "64k"):
        ballast = disk / "ballast"
        if before:
            fill(ballast)
        with serving(database, disk, BIND=bind, METRICS_DIRECTORY=metrics, LOG_LEVEL="debug", WORKERS=1) as service:
            workers = service.workers
            fill(ballast)
            began = time.monotonic()
            for _ in range(50):
                assert service.get("/people?limit=1").status_code == 200
                made = service.post(PERSON)
                assert made.status_code == 201
                assert service("DELETE", made.headers["Location"]).status_code == 204
            assert time.monotonic() - began < 20
            database.sql("ALTER TABLE people RENAME TO gone")  # the service logs what the database says
            assert service.get("/people?limit=1").status_code == 503
            database.sql("ALTER TABLE gone RENAME TO people")
            with service.connect(10) as connection:  # gunicorn logs what is no request
                connection.sendall(b"GET / HTTP/9.9\r\n\r\n")
                assert connection.recv(12) == b"HTTP/1.1 400"
            assert service.workers == workers
            ballast.unlink()
            assert service.get("/version").ok
            assert service.output.splitlines()[-1].endswith("}")
            assert '"route":"/version"' in service.output.splitlines()[-1]
            fill(ballast)
            assert service.stop() == 0


def fill(ballast: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
