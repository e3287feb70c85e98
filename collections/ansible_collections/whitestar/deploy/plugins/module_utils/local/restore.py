# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore of a local target: planned beside what serves, put in its place in one step, and the way back."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    exchange,
    exclusively,
    make_directory,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.host.restore import KEPT, HostRestore
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.base_backup import archive_now, server_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError, PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.local.recovery import Recovery
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import LocalRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import BackupError, base_of, chain
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS


class Restore(HostRestore):
    """One restore of a local deployment. ``options`` are those of the module local_restore."""

    live: PostgresServer
    beside: PostgresServer

    def __init__(self, repository: Repository, options: Mapping[str, Any]) -> None:
        super().__init__(repository.state, LocalRuntime(repository.state), options)
        self.repository = repository
        self.live = server_of(repository)
        self.beside = PostgresServer(self.place, self.live.bindir, self.live.owner)
        self.beside_environment = {"TITANIC_DATABASE_HOST": str(self.beside.socket_directory)}

    def running(self) -> bool:
        return self.live.exists() and self.live.running()

    def check(self, *, archived: bool) -> Recovery:
        """Refuse what cannot be done, before anything is touched. Raises BackupError, DatabaseError, OSError."""
        target = self.target()
        system = self.live.system() if self.live.exists() else ""
        record = self.repository.record()
        consent = self.options["system"] or ""
        self.repository.check(self.live.major(), "" if consent and consent == record["system"] else system)
        backups = self.repository.backups()
        lineage = self.repository.lineage(target.timeline or self.timeline(target.time, record["system"]))
        base = base_of(target, [each for each in backups.values() if each.system == record["system"]], lineage)
        recovery = Recovery(self.repository, self.place, target, chain(backups, base.label), lineage)
        recovery.check(self.repository.wal(), archived=archived)
        return recovery

    def timeline(self, time: datetime | None, system: str) -> int:
        """The one that served at this time, now if there is none, in the database of this identifier."""
        control = self.live.control() if self.live.exists() else {}
        ours = control.get("Database system identifier") == system
        newest = int(control["Latest checkpoint's TimeLineID"]) if ours else self.repository.newest_timeline()
        return self.timeline_at(time, newest)

    def plan(self) -> dict[str, Any]:
        """Bring the database back beside the one that serves, and say what a switch would lose.

        Raises BackupError, DatabaseError, OSError; nothing is left beside then.
        """
        self.check(archived=not self.running())
        maintained = self.maintained()
        if self.options["drain"]:
            self.begin_maintenance()
        lost = self._archive()
        recovery = self.check(archived=True)
        began = datetime.now(UTC)
        try:
            with exclusively(self.state.backup):
                recovery.unpack()
                seconds = recovery.recover(self.options["settings"])
            plan = self.compared(recovery.target, recovery.chain[-1])
            plan |= {"to": self.options["to"], "backup": recovery.chain[-1].label, "data": str(self.beside.data)}
            plan |= {"replay_seconds": round(seconds, 1), "maintained": maintained, "not_archived": lost}
            plan["seconds"] = round((datetime.now(UTC) - began).total_seconds(), 1)
            self.beside.stop()
            self.note(plan)
        except BaseException:
            with suppress(DatabaseError, OSError):
                recovery.remove()
            raise
        return plan

    def _archive(self) -> str:
        """Have everything in the repository that the live database has; why not, where that is not to be had."""
        if not self.running():
            return "the database does not run: what it had not archived is lost"
        if self.live.run_sql("SHOW archive_mode") != "on":
            return "the database does not archive: nothing of it is in the repository"
        try:
            archive_now(self.live)
        except BackupError as error:
            return str(error)
        return ""

    def switch(self) -> dict[str, Any]:
        """Put what was planned in the place of what serves; what served is kept. Raises BackupError, DatabaseError."""
        plan = self.planned
        if not plan:
            raise BackupError("nothing was planned: what is to be switched to is not there")
        data = Path(plan["data"])
        self.begin_maintenance()
        report("stop the release")
        for colour in COLOURS:
            self.state.daemon(colour).stop(self.options["drain_seconds"])
        before = self.timeline(None, self.repository.record()["system"])
        kept = self.state.database / f"{KEPT}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        with exclusively(self.live.directory):
            report("switch the database")
            self.live.stop()
            try:
                self._history(data)
                self._exchange(data, kept)
            except BaseException:
                if self.live.exists():
                    self.live.start()
                raise
            self._settle()
        self.record({**plan, "timeline_before": before}, kept.name if kept.exists() else "")
        self.clear_place()
        return plan | {"kept": str(kept) if kept.exists() else ""}

    def _exchange(self, data: Path, kept: Path) -> None:
        if self.live.data.exists():
            exchange(data, self.live.data)
            data.rename(kept)
        else:
            data.rename(self.live.data)

    def _history(self, data: Path) -> None:
        """How the new timeline came about is needed by whoever restores along it."""
        for path in sorted((data / "pg_wal").glob("*.history")):
            self.repository.run("push", str(path), path.name)

    def _settle(self) -> None:
        """Have what is in place run as the database that serves."""
        settings = {**self.options["settings"], **self.options["archiving"]}
        for name in ("recovery.signal", "recovery.done"):
            (self.live.data / name).unlink(missing_ok=True)
        self.live.write_files(self.live.stale_files(settings), settings)
        self.live.start()
        self.ensure_roles(self.live)

    def plan_way_back(self, *, check: bool) -> dict[str, Any]:
        """The data that the last restore replaced are to serve again. Raises BackupError where there are none."""
        name, plan = self.way_back()
        data = self.state.database / name
        if not data.is_dir():
            raise BackupError("titanic_restore_to: previous: no data of before a restore are kept")
        plan["data"] = str(data)
        if not check:
            self.clear()
            make_directory(self.place, 0o755)
            self.note(plan)
        return plan

    def discard(self, *, check: bool) -> list[str]:
        """Remove the data that restores have replaced: their names. Raises OSError."""
        found = kept_data(self.state)
        if not check:
            for path in found:
                shutil.rmtree(path)
        return [path.name for path in found]

    def clear(self) -> bool:
        """Remove what was planned and not switched to; whether there was any. Raises DatabaseError."""
        there = self.place.exists()
        if there:
            self.beside.stop()
            self.clear_place()
        return there


def kept_data(state: State) -> list[Path]:
    """The data that restores have replaced, oldest first."""
    return sorted(state.database.glob(f"{KEPT}*"))
