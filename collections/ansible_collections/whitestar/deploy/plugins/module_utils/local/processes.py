# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a local target: listed, stopped, started, removed, and told from others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import exclusively
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.host.stop import GRACE_SECONDS, SPARE_SECONDS, Parts
from ansible_collections.whitestar.deploy.plugins.module_utils.local.backup_status import told_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError, PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import LocalRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import BackupError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS, ReleaseError

FRONT = "caddy"
# It starts again what ends; so it goes first, and comes last.
SUPERVISOR = "supervisor"
DAEMONS = (SUPERVISOR, FRONT, *COLOURS)
POSTGRESQL = "postgresql"


class Processes(Parts):
    """What runs on a local target."""

    def __init__(self, state: State, options: Mapping[str, Any]) -> None:
        self.cluster = PostgresServer(state.database, Path(options["bindir"]), unprivileged(options["account"]))
        self.state, self.host = state, LocalRuntime(state)
        self.database = f"socket in {self.cluster.socket_directory}"

    def listed(self) -> dict[str, str]:
        """Each process in a few words, by name."""
        found = {}
        for name in DAEMONS:
            daemon = self.state.daemon(name)
            process = daemon.process()
            release = daemon.facts().get("release", "")
            drains = " (drains)" if self.state.drain_file(name).exists() else ""
            found[name] = f"pid {process.pid} {release}{drains}".strip() if process else "stopped"
        found[POSTGRESQL] = "running" if self._database_runs() else "stopped"
        return found

    def backups(self) -> dict[str, str]:
        try:
            return told_of(self.state)
        except (BackupError, DatabaseError, OSError, ValueError) as error:
            return {"problem": str(error)}

    def running(self) -> list[str]:
        found = [name for name in DAEMONS if self.state.daemon(name).process()]
        return [*found, *([POSTGRESQL] if self._database_runs() else [])]

    def stop(self, seconds: float) -> None:
        for name in (SUPERVISOR, FRONT):
            if process := self.state.daemon(name).process():
                # Its record stays: it says how it is started.
                process.stop(seconds + SPARE_SECONDS)
        for colour in COLOURS:
            self.state.daemon(colour).stop(seconds)
        self.cluster.stop()

    def missing(self) -> list[str]:
        front = [] if self.state.daemon(FRONT).process() else [FRONT]
        supervisor = self.state.daemon(SUPERVISOR)
        kept = [SUPERVISOR] if supervisor.facts() and not supervisor.process() else []
        return ([POSTGRESQL] if self.cluster.exists() and not self.cluster.running() else []) + front + kept

    def serves(self) -> bool:
        return any(self.state.daemon(colour).process() for colour in COLOURS)

    def start(self, name: str) -> None:
        """Start one of them as it was. Raises DatabaseError, OSError, ReleaseError."""
        if name == POSTGRESQL:
            with exclusively(self.cluster.directory):
                if not self.cluster.running():
                    self.cluster.start()
            return
        daemon = self.state.daemon(name)
        with self.state.exclusively_of(name):
            if not daemon.process() and not daemon.restart():
                raise ReleaseError(f"{name}: how it is started is not recorded. Deploy once (make up).")

    def remove(self) -> tuple[list[str], list[str]]:
        """Stop everything, reverse proxy first; nothing of others is near it."""
        steps = [f"stop {name}" for name in self.running()]
        for name in DAEMONS:
            self.state.daemon(name).stop(GRACE_SECONDS)
        if self._database_runs():
            self.cluster.stop()
        return steps, []

    def _database_runs(self) -> bool:
        return self.cluster.exists() and self.cluster.running()


def running_processes(state: State) -> dict[str, str]:
    """Each process with its release, whichever pid it has: what tells it from another, for a plan."""
    daemons = {name: state.daemon(name) for name in (FRONT, *COLOURS)}
    running = {name: daemon.facts().get("release", "runs") for name, daemon in daemons.items() if daemon.process()}
    return {f"the process {name}": str(running.get(name, "stopped")) for name in daemons}
