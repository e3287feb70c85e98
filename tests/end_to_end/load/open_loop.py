"""An open-loop HTTP/1.1 load client that counts every request a release drops and every write it loses.

Requests leave by the clock, whether or not earlier ones have come back, and latency counts from the scheduled
time: a server that stalls for a second shows up as every request of that second, not as one slow request
("coordinated omission", Gil Tene, "How NOT to Measure Latency", 2013).

A request whose bytes have left is never sent again, with one exception that is off by default and counted apart: a GET
on a reused connection which the server closed before the first byte of a response (RFC 9110, section 9.2.2).
"""

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import ipaddress
import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import h11

Operation = Literal["read_one", "read_list", "create"]
ConnectionKind = Literal["new", "reused"]

MAXIMUM_SECONDS = 900.0
MAXIMUM_REQUESTS = 250_000
KEPT_FAILURES = 200
VERIFY_CONNECTIONS = 4
VERIFY_ATTEMPTS = 5
READ_BYTES = 65_536


class LoadError(Exception):
    """The load cannot be run at all: a bad plan, a target that is not this machine, or one that never answers."""


def is_of_this_machine(address: str) -> bool:
    """Whether an IP address is the loopback's, or is reached over a cable that ends in a network namespace of ours.

    Such a cable is a pair of virtual devices (veth), one end here, the other in a namespace that this machine has a
    name for, as a cluster in a namespace has it. A container's own way out is one as well: it has the default route.
    """
    if ipaddress.ip_address(address).is_loopback:
        return True
    device = next((str(route.get("dev", "")) for route in _network("route", "get", address)), "")
    ways_out = {route.get("dev") for family in ("-4", "-6") for route in _network(family, "route", "show", "default")}
    named = {space["nsid"] for space in _network("netns", "list-id") if space.get("name")}
    return device not in ways_out and any(
        link.get("linkinfo", {}).get("info_kind") == "veth" and link.get("link_netnsid") in named
        for link in _network("-details", "link", "show", "dev", device)
    )


def _network(*words: str) -> list[dict[str, Any]]:
    """What `ip` (iproute2) knows of this machine's network; nothing where there is no such program or thing."""
    try:
        done = subprocess.run(["ip", "-json", *words], capture_output=True, text=True, check=True, timeout=10)
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    return found


@dataclasses.dataclass(frozen=True)
class LoadPlan:
    """What to send, how fast and for how long.

    Raises `LoadError` for values out of bounds and for any target that is not an http:// address of this machine.
    """

    url: str
    """Reverse proxy, such as `http://127.0.0.1:5000`."""
    host: str = ""
    """Name that the reverse proxy is asked by, in the Host header; what the url says unless it is given."""
    rate: float = 200.0
    """Requests a second, evenly spaced."""
    seconds: float = 30.0
    """How long to send, at most 900."""
    post_share: float = 0.2
    """Share of requests that create a person, 0..1."""
    list_share: float = 0.1
    """Share of requests that read `GET /people?limit=`, 0..1; what is left reads one person."""
    list_limit: int = 20
    """Page size of the list request."""
    new_connection_share: float = 0.5
    """Share of requests that open their own connection and ask for it to be closed, 0..1."""
    timeout_seconds: float = 10.0
    """Time from the scheduled start to the last byte of the response."""
    maximum_in_flight: int = 2_000
    """Requests beyond this many at once are not sent and count as the failure `not_sent`."""
    reopen_stale_connections: bool = False
    """Send a GET again on a new connection when a reused one was closed before any byte; counted apart."""
    verify: bool = True
    """After the run, read every acknowledged write back and compare it."""
    delete_afterwards: bool = False
    """After the run (and after `verify`), delete every acknowledged write."""
    seed: int = 0
    """Seed of the order of operations, so that a run can be repeated."""

    def __post_init__(self) -> None:
        """Refuse a plan that is out of bounds."""
        bounds: Iterable[tuple[str, float, float, float]] = (
            ("rate", self.rate, 0.1, 20_000),
            ("seconds", self.seconds, 0.1, MAXIMUM_SECONDS),
            ("post_share", self.post_share, 0, 1),
            ("list_share", self.list_share, 0, 1),
            ("post_share + list_share", round(self.post_share + self.list_share, 9), 0, 1),
            ("new_connection_share", self.new_connection_share, 0, 1),
            ("timeout_seconds", self.timeout_seconds, 0.1, 120),
            ("list_limit", self.list_limit, 1, 1_000),
            ("maximum_in_flight", self.maximum_in_flight, 1, 20_000),
            ("rate * seconds", self.rate * self.seconds, 0, MAXIMUM_REQUESTS),
        )
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise LoadError(f"{name} is {value}; it must lie between {low} and {high}")
        _ = self.address

    @functools.cached_property
    def address(self) -> tuple[str, int]:
        """IP address and port of the target; `LoadError` unless every address of its host is of this machine."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
            raise LoadError(f"{self.url!r} is not of the form http://host:port")
        try:
            port = parts.port or 80
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            raise LoadError(f"{self.url!r}: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        if not all(is_of_this_machine(address) for address in addresses):
            raise LoadError(f"{self.url!r} is not this machine; load is sent to nobody else's")
        preferred = [address for address in addresses if "." in address] or addresses
        return preferred[0], port

    @property
    def host_header(self) -> str:
        """Value of the Host header."""
        return self.host or urllib.parse.urlsplit(self.url).netloc


@dataclasses.dataclass(frozen=True)
class Failure:
    """One request that did not get its right answer."""

    at_seconds: float
    """Scheduled time, in seconds since the start of the load."""
    operation: Operation
    connection: ConnectionKind
    kind: str
    """`connect`, `timeout`, `closed_before_response`, `truncated`, `protocol`, `status_503`, `body`, `not_sent` …"""
    detail: str


@dataclasses.dataclass
class LoadReport:
    """What happened. Counts are requests, times milliseconds from the scheduled start to the last byte."""

    rate: float
    seconds: float = 0.0
    sent: int = 0
    ok: int = 0
    failed: int = 0
    sent_by_operation: Counter[str] = dataclasses.field(default_factory=Counter)
    sent_by_connection: Counter[str] = dataclasses.field(default_factory=Counter)
    failed_by_kind: Counter[str] = dataclasses.field(default_factory=Counter)
    failed_by_connection: dict[str, Counter[str]] = dataclasses.field(
        default_factory=lambda: {"new": Counter(), "reused": Counter()}
    )
    reopened: int = 0
    """GETs sent again after a reused connection was closed before any response byte (0 unless the plan allows it)."""
    closed_while_idle: int = 0
    """Kept connections that the server closed while nothing was under way: no request was affected."""
    maximum_lag_ms: float = 0.0
    """Longest time by which this client itself sent late; a large one means the machine was too busy to measure."""
    latency_ms: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    """p50, p90, p99 and max of the ok requests: `all`, `new`, `reused` and by operation."""
    acknowledged: int = 0
    verified: int | None = None
    """Acknowledged writes that were read back as written; None when the plan did not ask."""
    missing: list[str] = dataclasses.field(default_factory=list)
    """uuids of acknowledged writes that are gone (404)."""
    wrong: list[str] = dataclasses.field(default_factory=list)
    """uuids of acknowledged writes that read back differently, or could not be read at all."""
    failures: list[Failure] = dataclasses.field(default_factory=list)
    """The first 200 failures in the order in which they ended."""

    @property
    def clean(self) -> bool:
        """True when something was sent, nothing failed and no acknowledged write is missing or wrong."""
        return self.sent > 0 and not (self.failed or self.missing or self.wrong)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        # Not asdict(): it cannot copy a Counter.
        plain = {**vars(self), "failures": [dataclasses.asdict(failure) for failure in self.failures]}
        return {"clean": self.clean, **plain}

    def summary(self) -> str:
        """One line for an assertion message or a log."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failed_by_kind.items())) or "none"
        new, reused = (self.sent_by_connection[kind] for kind in ("new", "reused"))
        when = [failure.at_seconds for failure in self.failures]
        between = f" (the first {len(when)} due between {min(when):.1f} and {max(when):.1f} s)" if when else ""
        # Whose words tell whether the reverse proxy or the service refused.
        first = f"; first: {self.failures[0].detail}" if when else ""
        return (
            f"{self.sent} sent in {self.seconds:.1f} s ({new} on new, {reused} on reused connections), "
            f"failed: {kinds}{between}; {self.acknowledged} writes acknowledged, "
            f"{len(self.missing)} missing, {len(self.wrong)} wrong{first}"
        )


class _RequestFailedError(Exception):
    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


@dataclasses.dataclass(frozen=True)
class _Response:
    status: int
    body: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise _RequestFailedError("body", f"not JSON: {self.body[:80]!r}") from error


class _Connection:
    """One HTTP/1.1 connection; h11 does the framing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host
        self._state = h11.Connection(h11.CLIENT)
        self.used = False

    @classmethod
    async def open(cls, plan: LoadPlan) -> Self:
        try:
            reader, writer = await asyncio.open_connection(*plan.address)
        except OSError as error:
            raise _RequestFailedError("connect", str(error)) from error
        return cls(reader, writer, plan.host_header)

    @property
    def closed_by_server(self) -> bool:
        return self._reader.at_eof() or self._reader.exception() is not None or self._writer.is_closing()

    @property
    def reusable(self) -> bool:
        return self._state.our_state is h11.IDLE and not self.closed_by_server

    async def exchange(self, method: str, target: str, body: bytes | None, keep: bool) -> _Response:
        """Send one request and read its whole response; the connection is ready for another when `reusable`."""
        headers = [("Host", self._host), ("Accept", "application/json"), ("User-Agent", "titanic-open-loop")]
        headers += [] if keep else [("Connection", "close")]
        if body is not None:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        events: list[h11.Event] = [h11.Request(method=method, target=target, headers=headers)]
        events += [h11.Data(data=body)] if body is not None else []
        data = b"".join(self._state.send(event) or b"" for event in [*events, h11.EndOfMessage()])
        self.used = True
        received = False
        status, content = 0, bytearray()
        try:
            self._writer.write(data)
            while True:
                event = self._state.next_event()
                if event is h11.NEED_DATA:
                    chunk = await self._reader.read(READ_BYTES)
                    received = received or bool(chunk)
                    self._state.receive_data(chunk)
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    content += event.data
                elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                    break
        except (OSError, h11.RemoteProtocolError) as error:
            at_end = isinstance(error, OSError) or self._reader.at_eof()
            kind = ("truncated" if received else "closed_before_response") if at_end else "protocol"
            raise _RequestFailedError(kind, f"{type(error).__name__}: {error}") from error
        if not status:
            raise _RequestFailedError("closed_before_response", "the server closed the connection")
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()
        return _Response(status, bytes(content))

    def close(self) -> None:
        self._writer.close()


@dataclasses.dataclass(frozen=True)
class _Task:
    """One request of the schedule."""

    number: int
    operation: Operation
    method: str
    target: str
    person: dict[str, Any] | None
    keep: bool

    @property
    def body(self) -> bytes | None:
        return None if self.person is None else json.dumps(self.person).encode()


class _Load:
    """One run: the schedule, the kept connections and the counts. Lives in one event loop."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.report = LoadReport(rate=plan.rate)
        self.stopping = asyncio.Event()
        self._random = random.Random(plan.seed)
        self._run_id = uuid.uuid4().hex[:8]
        self._idle: list[_Connection] = []
        self._uuids: list[str] = []
        self._written: dict[str, dict[str, Any]] = {}
        self._latencies: dict[str, list[float]] = {}
        self._in_flight: set[asyncio.Task[None]] = set()

    async def run(self, started: Callable[[], None] = lambda: None) -> LoadReport:
        """Learn the uuids, send by schedule until the time is over or `stopping` is set, then check the writes."""
        self._uuids = await self._existing_uuids()
        started()
        await self._send_by_schedule()
        for connection in self._idle:
            connection.close()
        self.report.latency_ms = {name: _percentiles(values) for name, values in sorted(self._latencies.items())}
        self.report.acknowledged = len(self._written)
        if self.plan.verify:
            self.report.verified = 0
            await self._each_written(self._verify)
        if self.plan.delete_afterwards:
            await self._each_written(self._delete)
        return self.report

    async def _existing_uuids(self) -> list[str]:
        try:
            async with asyncio.timeout(self.plan.timeout_seconds):
                response = await self._ask_once("GET", "/people")
            found = [str(person["uuid"]) for person in response.json()] if response.status == 200 else []
        except (TimeoutError, _RequestFailedError, KeyError, TypeError) as error:
            raise LoadError(f"{self.plan.url}/people does not answer before the load: {error}") from error
        if not found:
            raise LoadError(f"{self.plan.url}/people answers {response.status} without any person to read")
        return found

    async def _ask_once(self, method: str, target: str) -> _Response:
        connection = await _Connection.open(self.plan)
        try:
            return await connection.exchange(method, target, None, keep=False)
        finally:
            connection.close()

    async def _send_by_schedule(self) -> None:
        begin = time.perf_counter()
        number = 0
        while not self.stopping.is_set() and number < int(self.plan.rate * self.plan.seconds):
            due = begin + number / self.plan.rate
            wait = due - time.perf_counter()
            if wait > 0:
                await self._sleep_or_stop(wait)
                continue
            self.report.maximum_lag_ms = max(self.report.maximum_lag_ms, -wait * 1000)
            self._start(self._next_task(number), due, begin)
            number += 1
            await asyncio.sleep(0)
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        self.report.seconds = time.perf_counter() - begin

    async def _sleep_or_stop(self, seconds: float) -> None:
        # Short sleeps are exact and cheap; only a slow schedule needs to be woken by a stop.
        if seconds < 0.1:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return

    def _next_task(self, number: int) -> _Task:
        draw, keep = self._random.random(), self._random.random() >= self.plan.new_connection_share
        if draw < self.plan.post_share:
            return _Task(number, "create", "POST", "/people", self._new_person(number), keep)
        if draw < self.plan.post_share + self.plan.list_share:
            return _Task(number, "read_list", "GET", f"/people?limit={self.plan.list_limit}", None, keep)
        return _Task(number, "read_one", "GET", f"/people/{self._random.choice(self._uuids)}", None, keep)

    def _new_person(self, number: int) -> dict[str, Any]:
        return {
            "survived": bool(number % 2),
            "passengerClass": number % 3 + 1,
            "name": f"Load {self._run_id} {number}",
            "sex": ("male", "female", "other")[number % 3],
            "age": number % 90,
            "siblingsOrSpousesAboard": number % 5,
            "parentsOrChildrenAboard": number % 4,
            "fare": number % 500 + 0.25,
        }

    def _start(self, task: _Task, due: float, begin: float) -> None:
        self.report.sent += 1
        self.report.sent_by_operation[task.operation] += 1
        if len(self._in_flight) >= self.plan.maximum_in_flight:
            self.report.sent_by_connection["new"] += 1
            self._count_failure(task, "new", _RequestFailedError("not_sent", "too many in flight"), due - begin)
            return
        running = asyncio.create_task(self._one(task, due, begin))
        self._in_flight.add(running)
        running.add_done_callback(self._in_flight.discard)

    async def _one(self, task: _Task, due: float, begin: float) -> None:
        """Send one request; every way it can end is counted exactly once."""
        idle = self._take_idle() if task.keep else None
        kind: ConnectionKind = "reused" if idle else "new"
        self.report.sent_by_connection[kind] += 1
        try:
            async with asyncio.timeout(due + self.plan.timeout_seconds - time.perf_counter()):
                response = await self._exchange_on(task, idle)
            self._check(task, response)
        except TimeoutError:
            failure = _RequestFailedError("timeout", f"no whole response in {self.plan.timeout_seconds} s")
            self._count_failure(task, kind, failure, due - begin)
        except _RequestFailedError as failure:
            self._count_failure(task, kind, failure, due - begin)
        else:
            self.report.ok += 1
            elapsed = (time.perf_counter() - due) * 1000
            for name in ("all", kind, task.operation):
                self._latencies.setdefault(name, []).append(elapsed)

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            self.report.closed_while_idle += 1
            connection.close()
        return None

    async def _exchange_on(self, task: _Task, idle: _Connection | None) -> _Response:
        connection = idle or await _Connection.open(self.plan)
        try:
            response = await connection.exchange(task.method, task.target, task.body, task.keep)
            if task.keep and connection.reusable:
                self._idle.append(connection)
                return response
        except _RequestFailedError as failure:
            stale = idle is not None and failure.kind == "closed_before_response" and task.method == "GET"
            if not (stale and self.plan.reopen_stale_connections):
                raise
            self.report.reopened += 1
            return await self._exchange_on(task, None)
        finally:
            if connection not in self._idle:
                connection.close()
        return response

    def _check(self, task: _Task, response: _Response) -> None:
        expected = 201 if task.operation == "create" else 200
        if response.status != expected:
            raise _RequestFailedError(f"status_{response.status}", response.body[:200].decode(errors="replace"))
        content = response.json()
        if task.operation == "read_list":
            if not isinstance(content, list) or len(content) != min(self.plan.list_limit, len(self._uuids)):
                raise _RequestFailedError("body", f"not a list of {self.plan.list_limit}: {response.body[:80]!r}")
            return
        found = content.get("uuid") if isinstance(content, dict) else None
        if task.person is not None:
            self._acknowledge(found, task.person)
        elif found != task.target.rpartition("/")[2]:
            raise _RequestFailedError("body", f"another person: {response.body[:80]!r}")

    def _acknowledge(self, found: object, person: dict[str, Any]) -> None:
        try:
            identity = str(uuid.UUID(str(found)))
        except ValueError:
            raise _RequestFailedError("body", f"created without a uuid: {found!r}") from None
        if identity in self._written:
            raise _RequestFailedError("body", f"uuid given twice: {identity}")
        self._written[identity] = person

    def _count_failure(
        self, task: _Task, connection: ConnectionKind, failure: _RequestFailedError, at_seconds: float
    ) -> None:
        self.report.failed += 1
        self.report.failed_by_kind[failure.kind] += 1
        self.report.failed_by_connection[connection][failure.kind] += 1
        if len(self.report.failures) < KEPT_FAILURES:
            record = Failure(round(at_seconds, 3), task.operation, connection, failure.kind, failure.detail)
            self.report.failures.append(record)

    async def _each_written(self, action: Callable[[str], Awaitable[None]]) -> None:
        waiting = list(self._written)

        async def work() -> None:
            while waiting:
                await action(waiting.pop())

        await asyncio.gather(*(work() for _ in range(VERIFY_CONNECTIONS)))

    async def _ask_patiently(self, method: str, identity: str) -> _Response | None:
        """Ask after the run, again if need be: this looks at what is stored and is no part of the load."""
        for attempt in range(VERIFY_ATTEMPTS):
            try:
                async with asyncio.timeout(self.plan.timeout_seconds):
                    response = await self._ask_once(method, f"/people/{identity}")
                if response.status < 500:
                    return response
            except (TimeoutError, _RequestFailedError):
                pass
            await asyncio.sleep(0.2 * 2**attempt)
        return None

    async def _verify(self, identity: str) -> None:
        response = await self._ask_patiently("GET", identity)
        if response is not None and response.status == 404:
            self.report.missing.append(identity)
            return
        expected = {**self._written[identity], "uuid": identity}
        try:
            found = response.json() if response is not None and response.status == 200 else None
        except _RequestFailedError:
            found = None
        if found == expected:
            self.report.verified = (self.report.verified or 0) + 1
        else:
            self.report.wrong.append(identity)

    async def _delete(self, identity: str) -> None:
        await self._ask_patiently("DELETE", identity)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 (nearest rank) and max of at least one value."""
    ordered = sorted(values)
    ranks = {"p50": 0.50, "p90": 0.90, "p99": 0.99}
    found = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in ranks.items()}
    return {name: round(value, 3) for name, value in {**found, "max": ordered[-1]}.items()}


def run_load(plan: LoadPlan) -> LoadReport:
    """Run the whole plan and return its report; `LoadError` if the target does not answer before the load."""
    return asyncio.run(_Load(plan).run())


class BackgroundLoad:
    """The same load while something else happens, such as a release.

    ::

        with BackgroundLoad(LoadPlan(url, seconds=300)) as load:
            release()
        assert load.report.clean, load.report.summary()

    Entering returns once the first request is due; leaving stops the schedule, waits for the requests under way and, if
    the plan says so, verifies. `LoadError` on entering if the target does not answer.
    """

    def __init__(self, plan: LoadPlan) -> None:
        """Prepare the load; nothing is sent yet."""
        self._plan = plan
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._work, name="open-loop", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._load: _Load | None = None
        self._error: BaseException | None = None

    def start(self) -> Self:
        """Start sending; return when the first request is due."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def stop(self) -> LoadReport:
        """Stop the schedule, wait for what is under way, verify if planned and return the report."""
        if self._loop is not None and self._load is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # The planned time was over and the loop closed in between.
                self._loop.call_soon_threadsafe(self._load.stopping.set)
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self.report

    @property
    def report(self) -> LoadReport:
        """The report; while the load runs, its counts so far."""
        if self._load is None:
            raise LoadError("the load has not been started")
        return self._load.report

    @property
    def running(self) -> bool:
        """True while requests are being sent, that is until `stop` or the end of the planned time."""
        return self._thread.is_alive()

    def __enter__(self) -> Self:
        """Start the load."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the load; the report is in `report`."""
        self.stop()

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001 - start() or stop() raises it again
            self._error = error
        finally:
            self._started.set()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._load = _Load(self._plan)
        await self._load.run(self._started.set)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.end_to_end.load.open_loop", description=__doc__.splitlines()[0]
    )
    defaults = {field.name: field.default for field in dataclasses.fields(LoadPlan)}
    parser.add_argument("--url", default="http://127.0.0.1:5000", help="address of this machine (default %(default)s)")
    parser.add_argument("--host", default="", help="name to ask it by (default: as in the url)")
    for name in ("rate", "seconds", "post_share", "list_share", "new_connection_share", "timeout_seconds"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=defaults[name], help="%(default)s")
    for name in ("list_limit", "maximum_in_flight", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=defaults[name], help="%(default)s")
    for name in ("verify", "delete_afterwards", "reopen_stale_connections"):
        parser.add_argument(f"--{name.replace('_', '-')}", action=argparse.BooleanOptionalAction, default=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: the report as JSON on stdout; 0 when clean, 1 when not, 2 when it could not be run."""
    try:
        report = run_load(LoadPlan(**vars(_parser().parse_args(arguments))))
    except LoadError as error:
        print(f"open_loop: {error}", file=sys.stderr)
        return 2
    json.dump(report.to_json(), sys.stdout, indent=2)
    print()
    print(report.summary(), file=sys.stderr)
    return 0 if report.clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
