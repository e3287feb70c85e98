"""The load client must see what a bad server does: each fault here is really committed on a real socket."""

import dataclasses
import http.server
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .open_loop import BackgroundLoad, LoadError, LoadPlan, is_of_this_machine, main, run_load

Fault = Callable[["Handler"], bool]


class Server(http.server.ThreadingHTTPServer):
    """A people API in memory; `fault` may spoil a request under load and says whether it did."""

    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def __init__(self, fault: Fault | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.people: dict[str, dict[str, Any]] = {
            identity: {"uuid": identity} for identity in (str(uuid.uuid4()) for _ in range(50))
        }
        self.fault = fault
        self.forgets_writes = False
        self.requests: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    """The three operations the client uses, and DELETE."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.exchanges = 0

    def handle_any(self) -> None:
        self.payload = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.exchanges += 1
        with self.server.lock:
            self.server.requests.append(self.command)
        under_load = self.path != "/people" or self.command == "POST"
        if under_load and self.server.fault and self.server.fault(self):
            return
        self.answer()

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the base class's names

    def answer(self) -> None:
        people = self.server.people
        identity = self.path.rpartition("/")[2]
        if self.command == "POST":
            person = {**json.loads(self.payload), "uuid": str(uuid.uuid4())}
            if not self.server.forgets_writes:
                people[person["uuid"]] = person
            self.reply(201, person)
        elif self.path.startswith("/people?limit="):
            self.reply(200, list(itertools.islice(people.values(), int(self.path.partition("=")[2]))))
        elif self.path == "/people":
            self.reply(200, list(people.values()))
        elif identity not in people:
            self.reply(404, {"title": "Not Found"})
        elif self.command == "DELETE":
            self.reply(200, people.pop(identity))
        else:
            self.reply(200, people[identity])

    def reply(self, status: int, content: Any, cut: int = 0) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - cut])

    def drop(self) -> bool:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        return True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay silent."""


@contextmanager
def serving(fault: Fault | None = None) -> Iterator[Server]:
    server = Server(fault)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def plan(server: Server, **changes: Any) -> LoadPlan:
    base = LoadPlan(server.url, rate=200, seconds=1, post_share=0.3, timeout_seconds=20)
    return dataclasses.replace(base, **changes)


def until(happened: Callable[[], bool]) -> None:
    """Waits for something that a machine with other things to do may take long for."""
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_good_server_gives_a_clean_report() -> None:
    with serving() as server:
        report = run_load(plan(server))
    assert report.clean, report.summary()
    assert report.sent == report.ok == 200
    assert report.verified == report.acknowledged == report.sent_by_operation["create"] > 30
    assert set(report.sent_by_operation) == {"create", "read_one", "read_list"}
    assert min(report.sent_by_connection["new"], report.sent_by_connection["reused"]) > 50
    assert set(report.latency_ms) == {"all", "new", "reused", "create", "read_one", "read_list"}
    assert 0 < report.latency_ms["all"]["p50"] <= report.latency_ms["all"]["p99"] <= report.latency_ms["all"]["max"]


def test_dropped_requests_are_counted_and_never_sent_again() -> None:
    dropped = itertools.count(1)

    def drop_some(handler: Handler) -> bool:
        with handler.server.lock:
            drops = random.random() < 0.2
            return bool(drops and next(dropped) and handler.drop())

    with serving(drop_some) as server:
        report = run_load(plan(server, verify=False))
        arrived = len(server.requests) - 1  # The first one learns the uuids.
    assert arrived == report.sent == 200
    assert report.failed == next(dropped) - 1 > 10
    assert report.failed_by_kind == {"closed_before_response": report.failed}
    assert report.failed_by_connection["new"]
    assert report.failed_by_connection["reused"]
    assert not report.clean
    assert {failure.connection for failure in report.failures} == {"new", "reused"}


def test_a_kept_connection_closed_under_a_request_fails_unless_reopening_is_asked_for() -> None:
    def drop_second_get(handler: Handler) -> bool:
        return handler.exchanges > 1 and handler.command == "GET" and handler.drop()

    with serving(drop_second_get) as server:
        strict = run_load(plan(server, rate=50, new_connection_share=0, post_share=0))
        lenient = run_load(plan(server, rate=50, new_connection_share=0, post_share=0, reopen_stale_connections=True))
    assert set(strict.failed_by_kind) == {"closed_before_response"}
    assert strict.failed_by_connection["reused"]["closed_before_response"] == strict.failed > 0
    assert strict.reopened == 0
    assert lenient.clean
    assert lenient.reopened > 0


def test_a_post_is_never_sent_twice_even_when_reopening() -> None:
    def drop_second_post(handler: Handler) -> bool:
        return handler.exchanges > 1 and handler.command == "POST" and handler.drop()

    with serving(drop_second_post) as server:
        report = run_load(
            plan(server, rate=50, new_connection_share=0, post_share=1, list_share=0, reopen_stale_connections=True)
        )
        assert server.requests.count("POST") == report.sent
    assert report.reopened == 0
    assert report.failed > 0


def test_a_connection_closed_while_idle_costs_no_request() -> None:
    def close_after_answer(handler: Handler) -> bool:
        handler.answer()
        return handler.drop()

    with serving(close_after_answer) as server:
        report = run_load(plan(server, rate=50, new_connection_share=0, verify=False))
    assert report.clean, report.summary()
    assert report.closed_while_idle > 0


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (lambda handler: handler.send_error(503) or True, "status_503"),
        (
            lambda handler: handler.reply(200, {"uuid": "another", "filler": "x" * 50}, cut=9) or handler.drop(),
            "truncated",
        ),
        (lambda handler: handler.reply(200 + (handler.command == "POST"), {"uuid": "another"}) or True, "body"),
        (lambda handler: bool(handler.wfile.write(b"nonsense\r\n\r\n")) and handler.drop(), "protocol"),
        (lambda handler: not threading.Event().wait(5) and handler.drop(), "timeout"),
    ],
)
def test_each_fault_has_its_own_kind(fault: Fault, kind: str) -> None:
    with serving(fault) as server:
        report = run_load(plan(server, seconds=0.2, timeout_seconds=0.5 if kind == "timeout" else 20))
    assert report.sent == report.failed == 40
    assert report.failed_by_kind == {kind: 40}


def test_a_server_that_goes_away_is_a_connect_failure() -> None:
    with serving() as server, BackgroundLoad(plan(server, seconds=30, new_connection_share=1, verify=False)) as load:
        until(lambda: len(server.requests) > 20)
        server.shutdown()
        server.server_close()
        time.sleep(0.5)
    assert load.report.ok > 10
    assert load.report.failed_by_kind["connect"] > 0


def test_lost_and_changed_writes_are_named() -> None:
    with serving() as server, BackgroundLoad(plan(server, seconds=30, post_share=1, list_share=0)) as load:
        until(lambda: len(server.people) > 60)
        server.forgets_writes = True
        asked = len(server.requests)
        until(lambda: len(server.requests) > asked + 20)
        server.forgets_writes = False
        for person in list(server.people.values())[50:52]:
            person["fare"] = -1.0
    report = load.report
    assert report.failed == 0
    assert not report.clean
    assert len(report.missing) > 10
    assert len(report.wrong) == 2
    assert report.acknowledged == (report.verified or 0) + len(report.missing) + 2


def test_latency_counts_from_the_schedule_and_sending_never_waits() -> None:
    """A stall of 0.5 s shows up in every request due during it, not in one."""
    begin = time.monotonic()

    def stall(handler: Handler) -> bool:
        time.sleep(max(0.0, begin + 1.0 - time.monotonic()))
        return False

    with serving(stall) as server:
        begin = time.monotonic()
        report = run_load(plan(server, rate=100, seconds=2, post_share=0))
    assert report.clean, report.summary()
    assert report.latency_ms["all"]["max"] > 900
    assert report.latency_ms["all"]["p90"] > 200


def test_writes_are_deleted_when_asked() -> None:
    with serving() as server:
        report = run_load(plan(server, seconds=0.5, delete_afterwards=True))
        assert report.clean
        assert report.acknowledged > 10
        assert len(server.people) == 50


def test_the_background_load_stops_early_and_ends_in_time() -> None:
    with serving() as server:
        load = BackgroundLoad(plan(server, seconds=60, rate=2)).start()
        begin = time.monotonic()
        report = load.stop()
        assert time.monotonic() - begin < 30
        assert report.sent < 60
        assert not load.running
        assert run_load(plan(server, seconds=0.2)).seconds < 20


def test_more_in_flight_than_allowed_is_a_failure_of_its_own() -> None:
    with serving(lambda _: threading.Event().wait(3)) as server:
        report = run_load(plan(server, rate=100, seconds=0.3, maximum_in_flight=5, verify=False))
    assert report.failed_by_kind["not_sent"] == 25
    assert report.ok == 5


def test_the_reverse_proxy_is_asked_by_the_name_that_is_given() -> None:
    with serving(lambda handler: handler.headers["Host"] != "titanic.test" and handler.drop()) as server:
        assert run_load(plan(server, seconds=0.2, host="titanic.test")).clean
        assert run_load(plan(server, seconds=0.2)).failed == 40


@contextmanager
def cable(name: str) -> Iterator[str]:
    """An address in a network namespace of this machine, at the other end of a cable."""
    made = [
        f"netns add {name}",
        f"link add {name} type veth peer name far netns {name}",
        f"address add 10.255.254.1/30 dev {name}",
        f"link set {name} up",
        f"-netns {name} address add 10.255.254.2/30 dev far",
        f"-netns {name} link set far up",
    ]
    try:
        for words in made:
            subprocess.run(["ip", *words.split()], check=True)
        yield "10.255.254.2"
    finally:
        # The cable goes with its end.
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="root makes a network namespace, with ip")
def test_a_network_namespace_of_this_machine_is_this_machine() -> None:
    with cable(f"load-{uuid.uuid4().hex[:6]}") as address:
        assert is_of_this_machine(address)
        assert LoadPlan(f"http://{address}").address == (address, 80)
    assert not is_of_this_machine(address)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "http://192.0.2.1:5000"}, "not this machine"),
        ({"url": "https://127.0.0.1:5000"}, "form http"),
        ({"url": "http://127.0.0.1:5000/people"}, "form http"),
        ({"url": "http://127.0.0.1:99999"}, "ort"),
        ({"rate": 0}, "rate"),
        ({"rate": 20_000, "seconds": 900}, r"rate \* seconds"),
        ({"seconds": 901}, "seconds"),
        ({"post_share": 0.7, "list_share": 0.7}, "post_share"),
        ({"new_connection_share": float("nan")}, "new_connection_share"),
    ],
)
def test_a_bad_plan_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        LoadPlan(**{"url": "http://127.0.0.1:5000", **changes})


def test_a_dead_target_is_refused_before_the_load(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(LoadError, match="does not answer"):
            BackgroundLoad(LoadPlan(url)).start()
        assert main(["--url", url]) == 2
    assert "does not answer" in capsys.readouterr().err


def test_the_command_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        assert main(["--url", server.url, "--rate", "100", "--seconds", "0.5", "--verify"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["clean"] is True
        assert report["sent"] == 50
        assert report["missing"] == []
        server.fault = Handler.drop
        assert main(["--url", server.url, "--rate", "100", "--seconds", "0.5"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["failed_by_kind"] == {"closed_before_response": 50}
