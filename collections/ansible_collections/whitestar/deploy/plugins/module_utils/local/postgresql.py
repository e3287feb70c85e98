# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL cluster of our own on a local target: on a unix socket only, and never run as root."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import record_checksums
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    make_directory,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import as_owner, service_environment
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import ADMINISTRATOR, PSQL, Server

OLDEST_MAJOR = 15
START_SECONDS = 60
PORT = 5432


class DatabaseError(RuntimeError):
    """PostgreSQL could not be made, started or asked; the message holds its own words and the remedy."""


@dataclass(frozen=True)
class PostgresServer(Server):
    """A cluster below ``directory``, run by the programs in ``bindir`` as ``owner`` (uid, gid; None: as ourselves)."""

    directory: Path
    bindir: Path
    owner: tuple[int, int] | None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def socket_directory(self) -> Path:
        """Where it listens, and nowhere else."""
        return self.directory / "run"

    @property
    def log(self) -> Path:
        """What the server says before its own log files are open."""
        return self.directory / "log" / "start.log"

    def version(self) -> str:
        """The programs' version, such as ``18.6``. Raises DatabaseError if they do not work."""
        try:
            text = self.run_program(["postgres", "--version"])
        except OSError as error:
            raise DatabaseError(
                f"titanic_database_local_bindir: {self.bindir} has no working 'postgres' program ({error}). "
                "Name another directory."
            ) from error
        return text.split()[2]

    def running_version(self) -> str:
        """The version of the server that runs, in the same form."""
        return self.run_sql("SHOW server_version").split()[0]

    def major(self) -> int:
        """The programs' major version. Raises DatabaseError if they are missing or older than 15."""
        found = re.match(r"\d+", self.version())
        major = int(found[0]) if found else 0
        if major < OLDEST_MAJOR:
            raise DatabaseError(
                f"titanic_database_local_bindir: {self.bindir} is PostgreSQL {major}. Name {OLDEST_MAJOR} or later."
            )
        return major

    def exists(self) -> bool:
        """Whether a cluster is there. An interrupted attempt to make one never has this name."""
        return (self.data / "PG_VERSION").is_file()

    def check_major(self) -> None:
        """Raises DatabaseError when the data were made by another major version than the programs'."""
        kept = (self.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        if int(kept) != self.major():
            raise DatabaseError(
                f"the data in {self.data} are PostgreSQL {kept}'s, the programs in {self.bindir} are {self.major()}. "
                f"Set titanic_database_local_bindir to PostgreSQL {kept}, or dump and load into a new cluster."
            )

    def make(self) -> None:
        """Make the cluster, with checksums, from nothing or from the remains of an interrupted attempt."""
        make_directory(self.directory, 0o755, self.owner)
        for name, mode in (("run", 0o755), ("log", 0o700)):
            make_directory(self.directory / name, mode, self.owner)
        unfinished = self.directory / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--auth-host=reject", "--no-instructions"]
        options += [f"--username={ADMINISTRATOR}", "--auth-local=peer", "--pgdata", str(unfinished)]
        self.run_program(["initdb", *options])
        unfinished.rename(self.data)

    def files(self, settings: Mapping[str, object]) -> dict[Path, bytes]:
        """Our configuration files by path. Only peers of the operating system may be administrator."""
        ours = {
            "listen_addresses": "",
            "port": PORT,
            "unix_socket_directories": str(self.socket_directory),
            "unix_socket_permissions": "0777",
            "password_encryption": "scram-sha-256",
            "logging_collector": "on",
            "log_directory": str(self.directory / "log"),
            "log_filename": "postgresql-%a.log",
            "log_rotation_age": "1d",
            "log_truncate_on_rotation": "on",
            "max_connections": 50,
            "shared_buffers": "64MB",
        }
        lines = [f"{name} = '{_escape(value)}'\n" for name, value in sorted((ours | dict(settings)).items())]
        users = f"local all,replication {ADMINISTRATOR} peer map=administrator\nlocal all all scram-sha-256\n"
        account = pwd.getpwuid(self.owner[0] if self.owner else os.geteuid()).pw_name
        return {
            self.data / "titanic.conf": "".join(lines).encode(),
            self.data / "pg_hba.conf": users.encode(),
            self.data / "pg_ident.conf": f'administrator "{account}" {ADMINISTRATOR}\n'.encode(),
        }

    def stale_files(self, settings: Mapping[str, object]) -> list[Path]:
        """Which of :meth:`files` are not as they should be."""
        stale = [path for path, content in self.files(settings).items() if not has_content(path, content, 0o600)]
        main = self.data / "postgresql.conf"
        return stale if _INCLUDE in main.read_text(encoding="utf-8") else [*stale, main]

    def write_files(self, stale: Sequence[Path], settings: Mapping[str, object]) -> None:
        """Write them."""
        wanted = self.files(settings)
        for path in stale:
            if path in wanted:
                write_atomically(path, wanted[path], 0o600, self.owner)
            else:
                text = path.read_text(encoding="utf-8") + _INCLUDE
                write_atomically(path, text.encode(), 0o600, self.owner)
        record_checksums(
            self.directory, {str(path.relative_to(self.directory)): text for path, text in wanted.items()}, self.owner
        )

    def running(self) -> bool:
        """Whether the server runs."""
        return self._start("pg_ctl", ["status", "--pgdata", str(self.data)], "").returncode == 0

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start it and wait until it answers. Raises DatabaseError with its last words."""
        try:
            words = ["--wait", "--timeout", f"{seconds:.0f}", "--silent", "--log", str(self.log)]
            self.run_program(["pg_ctl", "start", "--pgdata", str(self.data), *words], seconds=seconds)
        except DatabaseError as error:
            said = self.log.read_text(errors="replace") if self.log.exists() else ""
            raise DatabaseError(f"PostgreSQL did not start: {error}\n{said[-1500:]}") from error

    def stop(self) -> None:
        """Stop it; sessions are disconnected, everything committed is on disk."""
        if self.exists() and self.running():
            seconds = ["--wait", "--timeout", str(START_SECONDS)]
            self.run_program(["pg_ctl", "stop", "--mode", "fast", *seconds, "--pgdata", str(self.data)])

    def reload(self) -> None:
        """Read the configuration again."""
        self.run_program(["pg_ctl", "reload", "--pgdata", str(self.data)])

    def pending_restart(self) -> list[str]:
        """Settings that take effect only when the server starts again."""
        found = self.query("SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings WHERE pending_restart")
        return list(found) if isinstance(found, list) else []

    def run_sql(self, sql: str, database: str = "postgres") -> str:
        """Run ``sql`` as the administrator; it goes in by standard input, so it is in no process list."""
        place = ["-h", str(self.socket_directory), "-p", str(PORT)]
        return self.run_program([*PSQL, *place, "-d", database, "-f", "-"], sql).strip()

    def stream_sql(self, sql: str, database: str) -> Iterator[bytes]:
        """The lines that ``sql`` prints, however many. Raises DatabaseError at the end if it failed."""
        words = [*PSQL, "-h", str(self.socket_directory), "-p", str(PORT), "-d", database, "-f", "-"]
        with tempfile.TemporaryFile() as script, tempfile.TemporaryFile() as complaints:
            script.write(sql.encode())
            script.seek(0)
            streams: dict[str, Any] = {"stdin": script, "stdout": subprocess.PIPE, "stderr": complaints}
            with subprocess.Popen([str(self.bindir / words[0]), *words[1:]], **streams, **self.process()) as client:
                if client.stdout:
                    yield from client.stdout
            if client.returncode:
                complaints.seek(0)
                told = complaints.read().decode(errors="replace").strip()[-1500:]
                raise DatabaseError(f"{words[0]} failed ({client.returncode}): {told}")

    def connection(self) -> list[str]:
        """How PostgreSQL's own clients are told to reach it as the administrator."""
        return ["-h", str(self.socket_directory), "-p", str(PORT), "-U", ADMINISTRATOR]

    def control(self) -> dict[str, str]:
        """What pg_controldata says of the data, whether the server runs or not. Raises DatabaseError."""
        lines = self.run_program(["pg_controldata", str(self.data)]).splitlines()
        return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def system(self) -> str:
        """The identifier that tells this database from every other. Raises DatabaseError."""
        return self.control()["Database system identifier"]

    def process(self) -> dict[str, Any]:
        """Arguments of ``subprocess`` for its programs."""
        return {"cwd": "/", "env": service_environment({"HOME": str(self.directory)}), **as_owner(self.owner)}

    def run_program(self, command: Sequence[str], standard_input: str = "", seconds: float = START_SECONDS) -> str:
        """Run one of PostgreSQL's programs: what it prints. Raises DatabaseError with its words."""
        done = self._start(command[0], command[1:], standard_input, seconds)
        if done.returncode:
            words = (done.stderr or done.stdout).strip()[-1500:]
            raise DatabaseError(f"{command[0]} failed ({done.returncode}): {words}")
        return done.stdout

    def _start(
        self, program: str, arguments: Sequence[str], standard_input: str, seconds: float = START_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bindir / program), *arguments],
            input=standard_input,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds * 2,
            **self.process(),
        )


_INCLUDE = "\ninclude 'titanic.conf'\n"


def _escape(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace("'", "''")
