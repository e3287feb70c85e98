# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database in a container that is brought back beside the one that serves: in a volume of its own, up to a moment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.backups import ComposeBackups
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    LABEL,
    PROJECT_LABEL,
    EngineError,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.psql import ContainerServer
from ansible_collections.whitestar.deploy.plugins.module_utils.release import pgbackrest
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    Backup,
    BackupError,
    Lineage,
    Target,
    base_of,
    missing_for,
    wal_problem,
)

RECOVERY_SECONDS = 3600
# What a recovery writes beside the data of the backup.
SPARE_MEBIBYTES = 200
NOT_REACHED = "recovery ended before configured recovery target was reached"
VOLUME_LABEL = "com.docker.compose.volume"
# What pgBackRest has left in the configuration of a database that has been brought back.
RECOVERED: tuple[str, ...] = (
    "restore_command",
    "recovery_target_time",
    "recovery_target_name",
    "recovery_target_timeline",
)
RECOVERED += ("recovery_target_action",)
MEMORY = "512m"


class ContainerRecovery:
    """One database that is brought back as the container ``PROJECT-NAME`` with a volume of the project.

    ``lasting`` is whether it is to outlast a loss of power: a drill's is not.
    """

    def __init__(
        self, backups: ComposeBackups, name: str, volume: str, target: Target, *, lasting: bool = True
    ) -> None:
        self.backups, self.engine, self.target, self.lasting = backups, backups.engine, target, lasting
        self.container = f"{self.engine.project}-{name}"
        self.volume_key, self.volume = volume, f"{self.engine.project}_{volume}"
        self.server = ContainerServer(self.engine, self.container)
        self.lineage = Lineage.of(1)

    def choose(
        self, told: Sequence[Mapping[str, Any]], system: str, timeline: int, *, archived: bool = True
    ) -> tuple[int, Backup]:
        """The backup to begin with, and its repository. Raises BackupError where no moment like that can be had.

        ``archived`` is whether all WAL is in the repositories that ever will be.
        """
        refusals = []
        for number, backups in sorted(pgbackrest.listed(told).items()):
            self.lineage = self.backups.lineage(told, number, system, timeline)
            try:
                base = base_of(self.target, [each for each in backups.values() if each.system == system], self.lineage)
            except BackupError as error:
                refusals.append(str(error))
                continue
            wal = self.backups.wal(told, number, system)
            missing = missing_for(self.target, base, self.lineage, wal, archived=archived)
            if not missing:
                return number, base
            refusals.append(wal_problem(missing, self.backups.given_up(), f"repository {number}"))
        raise BackupError(refusals[0] if refusals else "titanic_backup_repositories: there is no repository yet")

    def require_room(self, backup: Backup) -> None:
        """Refuse a disk that is too small. Raises BackupError."""
        free, needed = self.backups.free_mebibytes(), backup.bytes // 2**20 + SPARE_MEBIBYTES
        if free is not None and free < needed:
            what = f"only {free} MiB are free where the engine keeps volumes, a restore needs {needed} MiB"
            raise BackupError(f"titanic_engine: {what}. Free some first.")

    def unpack(self, number: int, backup: Backup) -> None:
        """The data directory as the backup has it, each file checked. Raises BackupError, EngineError."""
        self.remove()
        report(f"unpack backup {backup.label}")
        labels = ["--label", f"{PROJECT_LABEL}={self.engine.project}", "--label", f"{VOLUME_LABEL}={self.volume_key}"]
        self.engine.run("volume", "create", *labels, self.volume)
        words = pgbackrest.restore_words(self.target, backup.label, number, self.lineage.timeline)
        try:
            self.backups.run("rest", *words, volume=self.volume, seconds=RECOVERY_SECONDS)
        except BackupError as error:
            raise BackupError(f"backup {backup.label} does not restore: {error}") from error

    def recover(self, settings: Mapping[str, Any], network: str = "") -> float:
        """Replay WAL up to the moment, and open for writing: the seconds it took. Raises BackupError, EngineError.

        It is on ``network`` as well, if that is named.
        """
        report(f"replay WAL up to {self.target.text}")
        began = time.monotonic()
        # hot_standby: it answers only once the moment is reached and it has a timeline of its own.
        ours = {"archive_mode": "off", "hot_standby": "off", **({} if self.lasting else {"fsync": "off"})}
        command = ["postgres", *(f"--{name}={value}" for name, value in sorted({**settings, **ours}.items()))]
        words = ["--name", self.container, "--label", f"{LABEL}=recovery", "--init=false", "--memory", MEMORY]
        words += ["--stop-signal", "SIGINT", "--volume", f"{self.volume}:{pgbackrest.DATA}"]
        words += ["--tmpfs", f"{pgbackrest.SOCKETS}:mode=0755,uid=999,gid=999"]
        out = self.backups.settings["reaches_out"]
        words += ["--network", network if network and not out else self.backups.network()]
        image = str(self.backups.settings["image"])
        self.engine.run("run", "--detach", "--pull", "never", *self.backups.options(*words), image, *command)
        if network and out:
            # One command cannot name both.
            self.engine.run("network", "connect", network, self.container)
        self._wait(began + RECOVERY_SECONDS)
        self.server.run_sql(";".join(f"ALTER SYSTEM RESET {name}" for name in RECOVERED))
        return time.monotonic() - began

    def _wait(self, deadline: float) -> None:
        while (self.engine.get(f"/containers/{self.container}/json") or {}).get("State", {}).get("Running"):
            with suppress(EngineError):
                self.server.run_sql("SELECT 1")
                return
            if time.monotonic() > deadline:
                raise BackupError(f"WAL was replayed for {RECOVERY_SECONDS} s without an end")
            time.sleep(0.2)
        raise BackupError(self._told())

    def _told(self) -> str:
        text = self.engine.logs(self.container, 200)
        if NOT_REACHED in text:
            return f"titanic_restore_to: '{self.target.text}' is after the last WAL. Name an earlier moment, or latest."
        lines = [line for line in text.splitlines() if any(word in line for word in ("ERROR", "FATAL", "PANIC"))]
        return f"what was restored does not start: {' '.join(lines[-3:]) or text[-500:]}"

    def stop(self) -> None:
        """Stop it and take its container away; its volume stays. Raises EngineError."""
        if self.engine.get(f"/containers/{self.container}/json"):
            self.engine.run("stop", "--time", "60", self.container)
            self.engine.run("rm", "--force", self.container)

    def remove(self) -> bool:
        """Take it away with its volume, and what a run that was killed left at work there: whether there was any.

        Raises EngineError.
        """
        found = self.engine.run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"volume={self.volume}").split()
        if self.engine.get(f"/containers/{self.container}/json"):
            found.append(self.container)
        for container in found:
            self.engine.run("rm", "--force", container)
        if self.engine.get(f"/volumes/{self.volume}"):
            self.engine.run("volume", "rm", self.volume)
            return True
        return bool(found)
