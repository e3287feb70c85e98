# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that runs on a host: told of, stopped so that it can be started as it was, started, or removed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import SERVICE_LABEL, Engine
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.definition import service_of
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.ownership import remove
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project
from ansible_collections.whitestar.deploy.plugins.module_utils.host.blue_green import HostColours
from ansible_collections.whitestar.deploy.plugins.module_utils.host.runtime import recorded_workload, runtime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State, fingerprint
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import Cluster
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import (
    COLOURS,
    ReleaseError,
    take_over,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.stopped import Stopped

FRONT = "caddy"
# It starts again what ends; so it goes first, and comes last.
SUPERVISOR = "supervisor"
DAEMONS = (SUPERVISOR, FRONT, *COLOURS)
POSTGRESQL = "postgresql"
# Services of a Compose project, each started before the next; the release is neither.
STARTED = ("database", "proxy")
GRACE_SECONDS = 25
# A front door that is given up only now has no time left for its own end.
SPARE_SECONDS = 5


class Processes:
    """What runs on a local target."""

    def __init__(self, state: State, options: Mapping[str, Any]) -> None:
        self.state = state
        self.cluster = Cluster(state.database, Path(options["bindir"]), unprivileged(options["account"]))
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

    def running(self) -> list[str]:
        """What runs, in the order in which it is stopped."""
        found = [name for name in DAEMONS if self.state.daemon(name).process()]
        return [*found, *([POSTGRESQL] if self._database_runs() else [])]

    def stop(self, seconds: float) -> None:
        """Stop all of it, front door first, which answers what it has; the database when nobody can write any more."""
        for name in (SUPERVISOR, FRONT):
            if process := self.state.daemon(name).process():
                # Its record stays: it says how it is started.
                process.stop(seconds + SPARE_SECONDS)
        for colour in COLOURS:
            self.state.daemon(colour).stop(seconds)
        self.cluster.stop()

    def missing(self) -> list[str]:
        """What has to be started before the release, in order."""
        front = [] if self.state.daemon(FRONT).process() else [FRONT]
        supervisor = self.state.daemon(SUPERVISOR)
        kept = [SUPERVISOR] if supervisor.facts() and not supervisor.process() else []
        return ([POSTGRESQL] if self.cluster.exists() and not self.cluster.running() else []) + front + kept

    def serves(self) -> bool:
        """Whether a release runs, ready or not."""
        return any(self.state.daemon(colour).process() for colour in COLOURS)

    def start(self, name: str) -> None:
        """Start one of them as it was. Raises DatabaseError, OSError, ReleaseError."""
        if name == POSTGRESQL:
            self.cluster.start()
        elif not self.state.daemon(name).restart():
            raise ReleaseError(f"{name}: how it is started is not recorded; deploy once (make up)")

    def remove(self) -> list[str]:
        """Stop everything, front door first; nothing of others is near it."""
        for name in DAEMONS:
            self.state.daemon(name).stop(GRACE_SECONDS)
        if self._database_runs():
            self.cluster.stop()
        return []

    def _database_runs(self) -> bool:
        return self.cluster.exists() and self.cluster.running()


class Containers:
    """What runs on a Compose target."""

    def __init__(self, state: State, options: Mapping[str, Any]) -> None:
        self.state = state
        self.engine = Engine.of(options["engine"])
        self.project = Project.of(state, self.engine)
        self.database = f"container {self.engine.project}-database-1, volume {self.engine.project}_database"

    def listed(self) -> dict[str, str]:
        """Each container in a few words, by name."""
        return {
            str(container["Name"]).lstrip("/"): " ".join(
                [container["State"]["Status"], container["State"].get("Health", {}).get("Status", "")]
            ).strip()
            for container in self.engine.containers()
        }

    def running(self) -> list[str]:
        """What runs, or is started again and again, in the order in which it is stopped."""
        found = [
            (_rank(str(container["Config"]["Labels"].get(SERVICE_LABEL))), str(container["Name"]).lstrip("/"))
            for container in self.engine.containers()
            if container["State"]["Running"] or container["State"]["Restarting"]
        ]
        return [name for _, name in sorted(found)]

    def stop(self, seconds: float) -> None:
        """Stop all of it, front door first; the engine does not start again what was stopped so."""
        for name in self.running():
            self.engine.run("stop", "--time", str(int(seconds + SPARE_SECONDS)), name)

    def missing(self) -> list[str]:
        """Services that have to be started before the release, in order."""
        wanted = [name for name in STARTED if self.project.part(name)]
        return [name for name in wanted if not any(_runs(found) for found in self.engine.containers(name))]

    def serves(self) -> bool:
        """Whether a release runs, ready or not."""
        return any(_runs(found) for colour in COLOURS for found in self.engine.containers(service_of(colour)))

    def start(self, name: str) -> None:
        """Start one of them as the project's file has it. Raises EngineError."""
        self.project.up(name)

    def remove(self) -> list[str]:
        """Stop and remove containers, networks, volumes and built images of ours; what of others is left."""
        left = remove(self.project, GRACE_SECONDS)
        host = runtime(self.state, vars(self.engine))
        for directory in self.state.images.glob("*"):
            host.discard_image(directory.name)
        return left


def _runs(container: Mapping[str, Any]) -> bool:
    return bool(container["State"]["Running"])


def _rank(service: str) -> int:
    """Front door, releases and whatever else, database."""
    return {"proxy": 0, "database": 2}.get(service, 1)


def stop(runs: Processes | Containers, by: str, seconds: float, *, check: bool) -> list[str]:
    """Stop everything, keep everything: what was done, in words; nothing where it was stopped before."""
    state = runs.state
    steps = [f"stop {name}" for name in runs.running()]
    known = state.stopped()
    if not check:
        # First, so that who finds it half stopped knows that somebody meant it.
        state.write_stopped(known or Stopped.now(by))
        runs.stop(seconds)
    return steps if known else [*steps, "record that it is stopped"]


def start(runs: Processes | Containers, options: Mapping[str, Any], *, check: bool) -> list[str]:
    """Start what does not run, the release of the ledger last: what was done, in words.

    Raises ReleaseError, EngineError, DatabaseError, OSError.
    """
    state = runs.state
    host = runtime(state, options["engine"])
    workload = recorded_workload(state, host, state.ledger().current())
    secrets = fingerprint(state, list(workload["secret_files"].values()), check=check)
    colours = host.colours(workload, secrets, options["ready_seconds"], options["drain_seconds"])
    missing = runs.missing()
    serves = colours.in_charge()
    steps = [f"start {name}" for name in missing] + ([] if serves else [f"start release {workload['release']}"])
    if not check:
        for name in missing:
            runs.start(name)
        if steps:
            serve(colours, serves)
        if left := runs.missing():
            raise ReleaseError(f"{', '.join(left)} ended at once: its log says why")
        state.forget_stopped()
    return steps


def serve(colours: HostColours, colour: str | None) -> None:
    """Have the release ready that runs as this colour; without one it is started. Raises ReleaseError."""
    if colour:
        colours.wait_until_ready(colour)
        return
    colours.hold_nobody()
    take_over(colours, None)
