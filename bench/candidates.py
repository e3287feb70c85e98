"""Who is measured: how each candidate's database is made and how its server is started."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.exchange import get
from bench.postgres import Postgres

ROOT = Path(__file__).parent.parent
PEER_SCHEMA = ROOT / "bench/peers/schema.sql"
WORKERS = 2
STALE_SECONDS = 1.0
"""How old the bounded candidate's answers may be."""
COPY_PERSON = """INSERT INTO people (uuid, survived, passenger_class, name, sex, age,
    siblings_or_spouses_aboard, parents_or_children_aboard, fare)
    VALUES (%(uuid)s, %(survived)s, %(passengerClass)s, %(name)s, %(sex)s, %(age)s,
    %(siblingsOrSpousesAboard)s, %(parentsOrChildrenAboard)s, %(fare)s)"""


@dataclass(frozen=True)
class Candidate:
    """One server to measure; `{port}` and `{directory}` (its own) are filled in at the start."""

    key: str
    label: str
    database: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A candidate that answers."""

    candidate: Candidate
    port: int
    process_id: int


def service(postgres: Postgres, stale_seconds: float = 0) -> Candidate:
    """Return this service as deployed: gunicorn, access log and metrics on."""
    environment = {
        "TITANIC_DATABASE_HOST": str(postgres.socket_directory),
        "TITANIC_BIND": "127.0.0.1:{port}",
        "TITANIC_WORKERS": str(WORKERS),
        "TITANIC_METRICS_DIRECTORY": "{directory}/metrics",
        "TITANIC_CACHE_MAX_STALE_SECONDS": str(stale_seconds),
        "PYTHONPATH": str(ROOT / "service/src"),
    }
    key, label = (
        ("bounded", f"Titanic, bounded {stale_seconds:g} s") if stale_seconds else ("strict", "Titanic, strict")
    )
    return Candidate(key, label, "titanic", (sys.executable, "-m", "titanic_api", "serve"), environment)


def peers(postgres: Postgres) -> list[Candidate]:
    """Return the peers, each with two workers too."""
    address = f"postgres@/peers?host={postgres.socket_directory}"
    uvicorn = ("uvicorn", "bench.peers.fastapi_asyncpg:app", "--loop", "uvloop", "--http", "httptools")
    gunicorn = ("gunicorn", "bench.peers.flask_tutorial:app", "--bind", "127.0.0.1:{port}")
    python = (sys.executable, "-m")
    return [
        Candidate(
            "fastapi",
            "FastAPI + asyncpg",
            "peers",
            (*python, *uvicorn, "--port", "{port}", "--workers", str(WORKERS)),
            {"DATABASE_URL": f"postgresql://{address}"},
        ),
        Candidate(
            "tutorial",
            "Flask-SQLAlchemy tutorial",
            "peers",
            (*python, *gunicorn, "--workers", str(WORKERS)),
            {"DATABASE_URL": f"postgresql+psycopg2://{address}"},
        ),
    ]


@contextmanager
def running_candidates(postgres: Postgres, directory: Path) -> Iterator[list[Running]]:
    """Make the databases, give the peers the service's rows, and run every candidate until the end of the block."""
    with ExitStack() as stack:
        strict = service(postgres)
        _make_service_database(postgres, strict)
        ours = stack.enter_context(_running(strict, directory))
        bounded = stack.enter_context(_running(service(postgres, STALE_SECONDS), directory))
        _make_peer_database(postgres, get(ours.port, "/people").json())
        theirs = [stack.enter_context(_running(candidate, directory)) for candidate in peers(postgres)]
        yield [ours, bounded, *theirs]


def _make_service_database(postgres: Postgres, candidate: Candidate) -> None:
    postgres.execute(
        """CREATE ROLE titanic_owner LOGIN; CREATE ROLE titanic_app LOGIN;
        CREATE DATABASE titanic OWNER titanic_owner"""
    )
    for command in ("migrate", "seed"):
        environment = {**os.environ, **candidate.environment, "TITANIC_BIND": "127.0.0.1:8000"}  # Not used by these.
        done = subprocess.run([*candidate.command[:-1], command], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"titanic-api {command} failed: {done.stderr[-2000:]}")


def _make_peer_database(postgres: Postgres, people: list[dict[str, Any]]) -> None:
    postgres.execute("CREATE DATABASE peers")
    postgres.execute(PEER_SCHEMA.read_text(), "peers")
    connection = postgres.connect("peers")
    with connection.cursor() as cursor:
        cursor.executemany(COPY_PERSON, people)
    connection.close()
    postgres.execute("VACUUM ANALYZE", "peers")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(candidate: Candidate, directory: Path) -> Iterator[Running]:
    port = _free_port()
    command = [part.format(port=port) for part in candidate.command]
    home = directory / candidate.key
    home.mkdir()
    own = {name: value.format(port=port, directory=home) for name, value in candidate.environment.items()}
    log_path = home / "log"
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **own}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_until_ready(server, port, log_path)
        yield Running(candidate, port, server.pid)
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if get(port, "/people").status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{' '.join(map(str, server.args))} does not answer:\n{log.read_text()[-3000:]}")  # type: ignore[arg-type]
