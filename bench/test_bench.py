"""The bench's figures rest on two things: processor time that misses nothing, and a client that counts right."""

import asyncio
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.client import ClientPlan, run_client
from bench.cpu import cpu_seconds, machine_cpu_seconds
from bench.exchange import raw_request

needs_bench = pytest.mark.skipif(not find_spec("uvloop"), reason="needs requirements/bench.txt (make bench)")

BURN = "import time\nwhile time.process_time() < 0.4: pass"
PARENT = f"""
import subprocess, sys
ended = subprocess.run([sys.executable, "-c", {BURN!r}])
living = subprocess.Popen([sys.executable, "-c", {BURN!r} + "\\nimport sys; print(1, flush=True); sys.stdin.read()"],
                          stdin=subprocess.PIPE)
sys.stdin.read()
"""


def test_processor_time_includes_children_alive_and_ended() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        parent.stdout.readline()
        assert 0.75 < cpu_seconds([parent.pid]) < 1.6
    finally:
        parent.communicate()


def test_processor_time_of_a_process_that_is_gone_is_refused() -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    with pytest.raises(ProcessLookupError):
        cpu_seconds([os.getpid(), int(ended.stdout)])


def test_the_machine_is_at_least_as_busy_as_one_of_its_processes() -> None:
    before = machine_cpu_seconds()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert machine_cpu_seconds() - before > 0.35


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers all but every tenth request with 200, and closes every seventh connection."""

    count = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        with Handler.lock:
            Handler.count += 1
            number = Handler.count
        self.send_response(500 if number % 10 == 0 else 200)
        self.send_header("Content-Length", "100000")
        if number % 7 == 0:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(b"x" * 100_000)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay silent."""


@pytest.fixture
def port() -> Iterator[int]:
    Handler.protocol_version = "HTTP/1.1"
    Handler.count = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@needs_bench
def test_the_client_counts_every_request_and_every_failure(port: int) -> None:
    result = run_client(ClientPlan(port, [raw_request("GET", f"/{n}") for n in range(5)], 200, 0.5, 4))
    assert result.requests == Handler.count > 10
    assert result.failed == Handler.count // 10
    assert abs(result.connections - (4 + Handler.count // 7)) <= 4
    assert 0 < result.p50_ms <= result.p99_ms < 20_000
    assert 0.5 <= result.seconds < 20


@needs_bench
def test_a_server_that_is_not_there_is_a_failure() -> None:
    async def unused_port() -> int:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        found = int(server.sockets[0].getsockname()[1])
        server.close()
        return found

    result = run_client(ClientPlan(asyncio.run(unused_port()), [raw_request("GET", "/")], 200, 0.2, 4))
    assert (result.requests, result.failed) == (0, 4)


@needs_bench
def test_the_bench_refuses_nonsense() -> None:
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-m", "bench", "--rounds", "0"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert "1 to 100 rounds" in done.stderr


@needs_bench
@pytest.mark.parametrize("name", ["bench", "bench.seed", "bench.backup", "bench.compose", "bench.kubernetes"])
def test_each_measurement_starts(name: str) -> None:
    """As `make bench` starts it: without the paths that pytest adds."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-m", name, "--help"], env=kept, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
