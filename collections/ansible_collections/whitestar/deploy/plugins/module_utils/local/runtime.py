# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The local target: the two colours as processes on unix sockets, releases as directories."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import closed_to_others, make_directory
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import (
    instead_of_root,
    run_json,
    service_environment,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.blue_green import (
    DATABASE_LINES,
    LOG_LINES,
    BlueGreen,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.base_backup import mark, server_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError

SOCKET = "api.sock"
# As the reverse proxy's container has it.
FRONT_USER = 10002
# Nobody else's, so that what serves cannot look into a migration, which has the owner's password.
COMMAND_USER = 10003


class LocalBlueGreen(BlueGreen):
    """The two colours as gunicorn processes. ``command`` is relative to the image's ``bin`` directory."""

    def running(self, colour: str) -> bool:
        """Whether its process runs."""
        return self.state.daemon(colour).process() is not None

    def facts(self, colour: str) -> dict[str, Any]:
        """What was recorded when it was started."""
        return self.state.daemon(colour).facts()

    def addresses(self, colour: str) -> list[str]:
        """Its socket."""
        return [self.state.address(colour)]

    def ended(self, colour: str) -> str:
        """Whether its process has ended."""
        return "" if self.running(colour) else "it ended at once"

    def last_output(self, colour: str, lines: int = LOG_LINES) -> str:
        """The end of its log."""
        return self.state.daemon(colour).log_tail(lines)

    def described(self, colour: str) -> str:
        """Whether its process runs, and what was recorded when it was started."""
        process = self.state.daemon(colour).process()
        return f"{f'pid {process.pid} runs' if process else 'no process runs'}; recorded: {self.facts(colour)}"

    def launch(self, colour: str) -> None:
        """Start it with a socket, a drain file and a place for metrics of its own."""
        command = command_line(self.workload["image"], self.workload["command"])
        owner = account(self.workload["image"], int(self.workload["user"]))
        metrics = self.state.run / f"{colour}.metrics"
        shutil.rmtree(metrics, ignore_errors=True)
        # It may make its socket there, and nothing where our records are. Nobody else comes in but the reverse proxy,
        # which is another user where we are root.
        make_directory(metrics, 0o750 if owner else 0o700, (owner[0], FRONT_USER) if owner else None)
        link = self.state.run / f"{colour}.sock"
        link.unlink(missing_ok=True)
        link.symlink_to(metrics / SOCKET)
        own = {
            "TITANIC_BIND": f"unix:{metrics / SOCKET}",
            "TITANIC_DRAIN_FILE": self.state.drain_file(colour),
            "TITANIC_METRICS_DIRECTORY": metrics,
        }
        self.state.daemon(colour).start(
            command,
            service_environment(self.workload["environment"] | own),
            {"release": self.workload["release"], "fingerprint": self.fingerprint, "at": time.time()},
            owner,
        )

    def halt(self, colour: str) -> None:
        """Stop its process and take its socket away."""
        self.state.daemon(colour).stop(self.drain_seconds)
        (self.state.run / f"{colour}.sock").unlink(missing_ok=True)


@dataclass(frozen=True)
class LocalRuntime:
    """How releases run on a local target."""

    state: State

    def missing(self, image: str, command: Sequence[str]) -> str:
        """What is missing to run a command of a release; empty if nothing is."""
        program = command_line(image, command)[0]
        return "" if Path(program).exists() else program

    def execute(
        self,
        image: str,
        command: Sequence[str],
        environment: Mapping[str, Any],
        secret_files: Mapping[str, str],
        seconds: float,
    ) -> tuple[int, Any, str]:
        """Run a command of a release: (exit code, JSON answer or None, standard error).

        Where we are root it is not, and reads copies in memory of what only root may read. Raises as ``run_json``, and
        ReleaseError.
        """
        owner = account(image, COMMAND_USER)
        with lent(secret_files.values() if owner else ()) as descriptors:
            copies = {path: f"/dev/fd/{number}" for path, number in descriptors.items()}
            words = command_line(image, [copies.get(word, word) for word in command])
            settings = service_environment({key: copies.get(str(value), value) for key, value in environment.items()})
            code, answer, said = run_json(words, settings, seconds, owner, list(descriptors.values()))
        for path, copy in copies.items():
            said = said.replace(copy, path)
        return code, answer, said

    def colours(self, workload: Mapping[str, Any], fingerprint: str, *limits: Any) -> BlueGreen:
        return LocalBlueGreen(self.state, workload, fingerprint, *limits)

    def has_image(self, reference: str) -> bool:
        """Whether the release directory is there."""
        return Path(reference).is_dir()

    def restore_point(self) -> dict[str, Any]:
        """Mark this moment in the database's WAL; empty where there are no backups. Raises ReleaseError."""
        repository = Repository.of(self.state)
        if repository is None:
            return {}
        try:
            return mark(server_of(repository), f"before-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
        except DatabaseError as error:
            raise ReleaseError(f"no restore point could be made for it, and so it is not deployed: {error}") from error

    def database_output(self) -> str:
        """The last lines of the newest of PostgreSQL's logs."""
        try:
            newest = max((self.state.database / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
            return "\n".join(newest.read_text(encoding="utf-8", errors="replace").splitlines()[-DATABASE_LINES:])
        except (OSError, ValueError):
            return "(no log)"

    def discard_image(self, identity: str) -> None:
        """Remove a release directory."""
        shutil.rmtree(self.state.images / identity, ignore_errors=True)


def command_line(image: str, command: Sequence[str]) -> list[str]:
    """A workload's command with its program taken from the release directory."""
    return [str(Path(image) / "bin" / command[0]), *command[1:]]


def account(image: str, uid: int) -> tuple[int, int] | None:
    """(uid, gid) that a release runs as where we are root, None otherwise. Raises ReleaseError if it could not run."""
    owner = instead_of_root(uid)
    python = (Path(image) / "bin" / "python").resolve()
    if owner and python.exists() and (closed := closed_to_others(python)):
        raise ReleaseError(
            f"a release does not run as root, and only root may use {closed}. "
            "Set titanic_image_python to an interpreter that is open to others, such as /usr/bin/python3."
        )
    return owner


@contextmanager
def lent(paths: Iterable[str]) -> Iterator[dict[str, int]]:
    """Descriptors of copies of files, in memory, which a program that inherits them may read whoever it is.

    Raises OSError.
    """
    found: dict[str, int] = {}
    try:
        for path in paths:
            found[path] = os.memfd_create(Path(path).name)
            with Path(path).open("rb") as source, os.fdopen(os.dup(found[path]), "wb") as copy:
                shutil.copyfileobj(source, copy)
        yield found
    finally:
        for number in found.values():
            os.close(number)
