"""Runs the rounds: every candidate on every route, one after the other, again and again."""

import dataclasses
import os
import sys
import time
from dataclasses import dataclass

from bench.candidates import Running
from bench.client import ClientPlan, ClientResult, run_client
from bench.cpu import cpu_seconds, machine_cpu_seconds
from bench.postgres import Postgres
from bench.routes import Route, remove_new


@dataclass(frozen=True)
class Measurement:
    """One candidate on one route in one round. Times in seconds, latencies in milliseconds."""

    round: int
    route: str
    candidate: str
    requests: int
    seconds: float
    application_cpu_seconds: float
    database_cpu_seconds: float
    p50_ms: float
    p99_ms: float
    connections: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def per_cpu_second(self) -> float:
        """Requests per second of processor time of the server and of PostgreSQL together."""
        return self.requests / (self.application_cpu_seconds + self.database_cpu_seconds)


@dataclass(frozen=True)
class Effort:
    """How long and how often to measure."""

    rounds: int
    seconds: float
    connections: int


class Others:
    """How much of the machine was used by processes that this one did not start, from now on."""

    def __init__(self) -> None:
        """Start counting."""
        self._begin = self._now()

    def share(self) -> float:
        """Return the share of all processors' time, 0..1: the larger, the less the figures of this run mean."""
        elapsed, busy, own = (now - begin for now, begin in zip(self._now(), self._begin, strict=True))
        return max(0.0, busy - own) / (elapsed * (os.cpu_count() or 1))

    @staticmethod
    def _now() -> tuple[float, float, float]:
        # Servers, database and load generators are all children of this process.
        return time.monotonic(), machine_cpu_seconds(), cpu_seconds([os.getpid()])


def measure(servers: list[Running], routes: list[Route], postgres: Postgres, effort: Effort) -> list[Measurement]:
    """Measure every candidate on every route in each round; each round starts with another candidate."""
    for route in routes:
        for server in servers:  # Fills caches and pools; not counted.
            _one(0, server, route, postgres, dataclasses.replace(effort, seconds=min(1.0, effort.seconds)))
    found = []
    for number in range(1, effort.rounds + 1):
        shift = number % len(servers)
        for route in routes:
            found += [_one(number, server, route, postgres, effort) for server in servers[shift:] + servers[:shift]]
        print(f"round {number} of {effort.rounds} done", file=sys.stderr)
    return found


def _one(number: int, server: Running, route: Route, postgres: Postgres, effort: Effort) -> Measurement:
    plan = ClientPlan(server.port, route.requests, route.status, effort.seconds, effort.connections)
    before = _cpu(server, postgres)
    result = run_client(plan)
    after = _cpu(server, postgres)
    _refuse_failures(server, route, result)
    if route.key == "create":
        remove_new(postgres, server.candidate.database)
    return Measurement(
        number,
        route.key,
        server.candidate.key,
        result.requests,
        result.seconds,
        after[0] - before[0],
        after[1] - before[1],
        result.p50_ms,
        result.p99_ms,
        result.connections,
    )


def _cpu(server: Running, postgres: Postgres) -> tuple[float, float]:
    return cpu_seconds([server.process_id]), cpu_seconds([postgres.process_id])


def _refuse_failures(server: Running, route: Route, result: ClientResult) -> None:
    if result.failed or not result.requests:
        raise RuntimeError(
            f"{server.candidate.label}, {route.label}: {result.failed} of {result.requests} requests failed; "
            "nothing can be compared with that"
        )
