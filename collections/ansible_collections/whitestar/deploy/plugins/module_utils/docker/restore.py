# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore of a Compose target: planned in a volume beside, which the service then has instead, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import make_directory, write_atomically
from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.backups import (
    BACKUP,
    DATABASE,
    ComposeBackups,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.definition import service_of
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.psql import ContainerServer
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.recovery import ContainerRecovery
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import ComposeRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.volumes import data_volume, volume_file
from ansible_collections.whitestar.deploy.plugins.module_utils.host.restore import HostRestore
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release import pgbackrest
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import Backup, BackupError, Target
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS

TIMELINE = "SELECT json_build_object('timeline', (SELECT timeline_id FROM pg_control_checkpoint()))"
STOP_SECONDS = 60


class Restore(HostRestore):
    """One restore of a Compose deployment. ``options`` are those of the module compose_restore."""

    def __init__(self, backups: ComposeBackups, options: Mapping[str, Any]) -> None:
        super().__init__(backups.state, ComposeRuntime(backups.engine, backups.state), options)
        self.backups, self.engine = backups, backups.engine
        self.project = Project.of(self.state, self.engine)
        self.live = ContainerServer(self.engine, f"{self.engine.project}-{DATABASE}-1")
        container = f"{self.engine.project}-restore"
        self.beside = ContainerServer(self.engine, container)
        # Its certificate, if it has one, is for another name; the network has no way out.
        self.beside_environment = {"TITANIC_DATABASE_HOST": container, "TITANIC_DATABASE_SSLMODE": "prefer"}

    def running(self) -> bool:
        return self.backups.running()

    def check(self, *, archived: bool) -> tuple[ContainerRecovery, int, Backup]:
        """Refuse what cannot be done, before anything is touched. Raises BackupError, EngineError, OSError.

        ``archived`` is whether all WAL is in the repositories that ever will be.
        """
        target = self.target()
        told = self.backups.told()
        consent = self.options["system"] or ""
        self.backups.refuse_others(told, consent)
        systems = [str(each["system-id"]) for stanza in told for each in stanza.get("db", [])]
        live, _ = self.backups.live_system()
        system = consent or (live if live in systems else "") or (systems[-1] if systems else "")
        newest = pgbackrest.newest_timeline(told)
        if live and live == system:
            found: Any = self.live.query(TIMELINE)
            newest = int(found["timeline"])
        recovery = ContainerRecovery(self.backups, "restore", f"database-{datetime.now(UTC):%Y%m%dt%H%M%Sz}", target)
        timeline = target.timeline or self.timeline_at(target.time, newest)
        number, base = recovery.choose(told, system, timeline, archived=archived)
        recovery.require_room(base)
        return recovery, number, base

    def plan(self) -> dict[str, Any]:
        """Bring the database back beside the one that serves, and say what a switch would lose.

        Raises BackupError, EngineError, OSError; nothing is left beside then.
        """
        self.check(archived=not self.running())
        maintained = self.maintained()
        if self.options["drain"]:
            self.begin_maintenance()
        lost = self._archive()
        self.clear()
        recovery, number, base = self.check(archived=True)
        began = datetime.now(UTC)
        try:
            make_directory(self.place, 0o755)
            self.project.claim(recovery.volume_key)
            write_atomically(self.place / "volume", recovery.volume_key.encode(), 0o644)
            recovery.unpack(number, base)
            seconds = recovery.recover(self.options["settings"], self.project.full_name("data"))
            plan = self.compared(recovery.target, base)
            plan |= {"to": self.options["to"], "backup": base.label, "volume": recovery.volume_key}
            plan |= {"replay_seconds": round(seconds, 1), "maintained": maintained, "not_archived": lost}
            plan["seconds"] = round((datetime.now(UTC) - began).total_seconds(), 1)
            recovery.stop()
            self.note(plan)
        except BaseException:
            with suppress(EngineError, OSError):
                self.clear()
            raise
        return plan

    def _archive(self) -> str:
        """Have everything in the repositories that the live database has; why not, where that is not to be had."""
        if not self.running():
            return "the database does not run: what it had not archived is lost"
        if self.live.run_sql("SHOW archive_mode") != "on":
            return "the database does not archive: nothing of it is in the repository"
        try:
            self.backups.archive_now()
        except BackupError as error:
            return str(error)
        return ""

    def switch(self) -> dict[str, Any]:
        """Stop what serves, and have the service's volume be the one that was planned; the other one is kept.

        The containers are started by M(whitestar.deploy.compose_service). Raises BackupError, EngineError, OSError.
        """
        plan = self.planned
        if not plan:
            raise BackupError("nothing was planned: what is to be switched to is not there")
        found: Any = self.live.query(TIMELINE) if self.running() else {"timeline": 1}
        self.begin_maintenance()
        report("stop the release and the database")
        for service in (*map(service_of, COLOURS), BACKUP, DATABASE):
            for container in self.engine.containers(service):
                seconds = self.options["drain_seconds"] if service not in (BACKUP, DATABASE) else STOP_SECONDS
                self.engine.run("stop", "--time", str(int(seconds)), str(container["Id"]))
        kept = data_volume(self.state)
        write_atomically(volume_file(self.state), f"{plan['volume']}\n".encode(), 0o644)
        there = self.engine.get(f"/volumes/{self.project.full_name(kept)}") is not None
        self.record({**plan, "timeline_before": int(found["timeline"])}, kept if there else "")
        self.clear_place()
        return plan | {"kept": kept if there else ""}

    def plan_way_back(self, *, check: bool) -> dict[str, Any]:
        """The volume that the last restore replaced is to serve again. Raises BackupError where there is none."""
        kept, plan = self.way_back()
        if not self.engine.get(f"/volumes/{self.project.full_name(kept)}"):
            raise BackupError("titanic_restore_to: previous: no data of before a restore are kept")
        plan["volume"] = kept
        if not check:
            self.clear()
            make_directory(self.place, 0o755)
            self.note(plan)
        return plan

    def discard(self, *, check: bool) -> list[str]:
        """Remove the volumes that restores have replaced: their names. Raises EngineError."""
        found = kept_volumes(self.project, self.state)
        for name in [] if check else found:
            self.engine.run("volume", "rm", name)
        return found

    def clear(self) -> bool:
        """Remove what was planned and not switched to; whether there was any. Raises EngineError."""
        noted = self.place / "volume"
        there = self.place.exists()
        if noted.exists():
            volume = noted.read_text(encoding="utf-8")
            ContainerRecovery(self.backups, "restore", volume, Target("")).remove()
        self.clear_place()
        return there


def kept_volumes(project: Project, state: State) -> list[str]:
    """The volumes that restores have replaced, oldest first, by the engine's names."""
    current, place = project.full_name(data_volume(state)), state.root / "restore"
    planned = (place / "volume").read_text(encoding="utf-8") if (place / "volume").exists() else ""
    names = sorted(name for name in project.volumes() if name.startswith(project.full_name(DATABASE)))
    spared = {current, project.full_name(planned)}
    sockets = project.full_name("database-sockets")
    return [
        name for name in names if name not in {*spared, sockets} and project.engine.get(f"/volumes/{name}") is not None
    ]
