"""A closed-loop load generator, cheap enough to saturate a server from the same machine; runs as its own process.

Reads a `ClientPlan` as JSON on stdin and prints a `ClientResult`. Each connection sends its next request when the last
one has been answered, on the same connection unless the server closes it. The bodies are counted, not parsed: another
module compares them.
"""

import asyncio
import dataclasses
import json
import random
import re
import subprocess
import sys
import time
from typing import cast

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CONNECTION_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
HEAD_END = b"\r\n\r\n"


@dataclasses.dataclass(frozen=True)
class ClientPlan:
    """What one load generator does."""

    port: int
    requests: list[str]
    """Whole HTTP/1.1 requests, sent in turn from a random start."""
    status: int
    """The status that counts as success."""
    seconds: float
    connections: int


@dataclasses.dataclass(frozen=True)
class ClientResult:
    """What came back. Latencies in milliseconds from the first byte sent to the last received."""

    requests: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    connections: int
    """Connections opened: more than planned where the server closes them."""

    @property
    def rate(self) -> float:
        """Requests answered a second."""
        return self.requests / self.seconds


class _Run:
    def __init__(self, plan: ClientPlan) -> None:
        self.plan = plan
        self.requests = [request.encode() for request in plan.requests]
        self.next = random.randrange(len(self.requests))
        self.latencies: list[float] = []
        self.failed = 0
        self.connections = 0
        self.connecting: set[asyncio.Future[None]] = set()
        self.active = plan.connections
        self.over = asyncio.Event()
        self.deadline = 0.0

    def next_request(self) -> bytes:
        self.next = (self.next + 1) % len(self.requests)
        return self.requests[self.next]

    async def run(self) -> ClientResult:
        begin = time.perf_counter()
        self.deadline = begin + self.plan.seconds
        for _ in range(self.plan.connections):
            await self.connect()
        async with asyncio.timeout(self.plan.seconds + 30):
            await self.over.wait()
        seconds = time.perf_counter() - begin
        ordered = sorted(self.latencies) or [float("nan")]
        p50, p99 = (1000 * ordered[int(share * len(ordered))] for share in (0.50, 0.99))
        return ClientResult(len(self.latencies), self.failed, seconds, p50, p99, self.connections)

    async def connect(self) -> None:
        self.connections += 1
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.plan.port)
        except OSError:
            self.failed += 1
            self.end_one()

    def end_one(self) -> None:
        self.active -= 1
        if not self.active:
            self.over.set()


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self.run = run
        self.head = b""
        self.remaining = -1
        self.under_way = False
        self.close = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.send()

    def send(self) -> None:
        self.head, self.remaining, self.under_way = b"", -1, True
        self.begin = time.perf_counter()
        self.transport.write(self.run.next_request())

    def data_received(self, data: bytes) -> None:
        if self.remaining >= 0:
            self.remaining -= len(data)
        else:
            self.head += data
            end = self.head.find(HEAD_END)
            if end < 0:
                return
            self.read_head(self.head[:end])
            self.remaining -= len(self.head) - end - len(HEAD_END)
        if self.remaining == 0:
            self.finish()

    def read_head(self, head: bytes) -> None:
        length = CONTENT_LENGTH.search(head)
        if length is None:  # No candidate answers so; connection_lost counts it as failed.
            self.transport.abort()
            return
        self.remaining = int(length[1])
        self.close = CONNECTION_CLOSE.search(head) is not None
        self.run.failed += int(head[9:12]) != self.run.plan.status

    def finish(self) -> None:
        now = time.perf_counter()
        self.run.latencies.append(now - self.begin)
        self.under_way = False
        if now >= self.run.deadline or self.close:
            self.transport.close()
        else:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio passes it
        self.run.failed += self.under_way
        if time.perf_counter() < self.run.deadline:
            task = asyncio.ensure_future(self.run.connect())
            self.run.connecting.add(task)
            task.add_done_callback(self.run.connecting.discard)
        else:
            self.run.end_one()


def run_client(plan: ClientPlan) -> ClientResult:
    """Run the plan in a process of its own; raise `RuntimeError` with its last words if it fails."""
    command = [sys.executable, "-m", "bench.client"]
    done = subprocess.run(command, input=json.dumps(dataclasses.asdict(plan)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr[-2000:]}")
    return ClientResult(**json.loads(done.stdout))


def main() -> None:
    """Run the plan given on stdin."""
    plan = ClientPlan(**json.load(sys.stdin))
    import uvloop

    result = uvloop.run(_Run(plan).run())
    json.dump(dataclasses.asdict(result), sys.stdout)


if __name__ == "__main__":
    main()
