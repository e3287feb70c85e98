# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore of a local target: planned beside what serves, put in its place in one step, and the way back."""

from __future__ import annotations

import http.client
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
    read_json,
    write_json,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.host import maintenance
from ansible_collections.whitestar.deploy.plugins.module_utils.host.runtime import recorded_workload
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.base_backup import archive_now, server_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError, PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.local.recovery import Recovery
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import LocalRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import digests, roles
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import literal
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    PREVIOUS,
    BackupError,
    Target,
    base_of,
    chain,
    moment,
    parse_target,
    stamp,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import (
    NOTHING_YET,
    Entry,
    LiveSchema,
    RollbackRefusedError,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.maintenance import Maintenance

CHECK_SECONDS = 20
MESSAGE = "The database is being restored. Please try again soon."
RETRY_SECONDS = 60
KEPT = "before-restore-"
# What the ledger has of a restore.
RECORDED = ("to", "backup", "reached", "lost_seconds", "lost_rows", "timeline_before")
THERE = "SELECT count(*) FROM pg_database WHERE datname = {name}"
REPLAYED = "SELECT json_build_object('at', to_json(pg_last_xact_replay_timestamp()))"


class Restore:
    """One restore of a deployment. ``options`` are those of the module local_restore."""

    def __init__(self, repository: Repository, options: Mapping[str, Any]) -> None:
        self.repository = repository
        self.state: State = repository.state
        self.place = self.state.root / "restore"
        # A switch does what was planned.
        planned = read_json(self.place / "plan.json", {}) if options["state"] == "switched" else {}
        self.planned: dict[str, Any] = planned.get("plan", {})
        self.options: dict[str, Any] = {**options, **planned.get("options", {})}
        self.live = server_of(repository)
        self.beside = PostgresServer(self.place, self.live.bindir, self.live.owner)

    def running(self) -> bool:
        """Whether the database that serves can be asked."""
        return self.live.exists() and self.live.running()

    def target(self) -> Target:
        """The moment that was asked for. Raises BackupError for one that cannot be."""
        found = parse_target(self.options["to"], self.state.ledger())
        if found.time is not None and found.time > datetime.now(UTC):
            raise BackupError(f"titanic_restore_to: '{found.text}' is yet to come. Name an earlier moment, or latest.")
        return found

    def check(self, *, archived: bool) -> Recovery:
        """Refuse what cannot be done, before anything is touched. Raises BackupError, DatabaseError, OSError."""
        if self.state.ledger().current() is None:
            raise BackupError(f"{NOTHING_YET}. Run the whole site first, which makes what a restored database needs.")
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
        found = int(control["Latest checkpoint's TimeLineID"]) if ours else self.repository.newest_timeline()
        for event in reversed(self.state.ledger().events):
            if event["kind"] == "restore" and time is not None and time < moment(event["at"]):
                found = event["timeline_before"]
        return found

    def plan(self) -> dict[str, Any]:
        """Bring the database back beside the one that serves, and say what a switch would lose.

        Raises BackupError, DatabaseError, OSError; nothing is left beside then.
        """
        self.check(archived=not self.running())
        maintained = maintenance.current(self.state) is not None
        if self.options["drain"]:
            self.begin_maintenance()
        lost = self._archive()
        recovery = self.check(archived=True)
        began = datetime.now(UTC)
        try:
            with exclusively(self.state.backup):
                recovery.unpack()
                seconds = recovery.recover(self.options["settings"])
            plan = self._compared(recovery)
            plan |= {"to": self.options["to"], "backup": recovery.chain[-1].label, "data": str(self.beside.data)}
            plan |= {"replay_seconds": round(seconds, 1), "maintained": maintained, "not_archived": lost}
            plan["seconds"] = round((datetime.now(UTC) - began).total_seconds(), 1)
            self.beside.stop()
            self._note(plan)
        except BaseException:
            with suppress(DatabaseError, OSError):
                recovery.remove()
            raise
        return plan

    def _note(self, plan: Mapping[str, Any]) -> None:
        kept = {key: value for key, value in self.options.items() if key not in ("state", "system", "drain")}
        write_json(self.place / "plan.json", {"plan": plan, "options": kept}, 0o600)

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

    def _compared(self, recovery: Recovery) -> dict[str, Any]:
        """What would be lost, and which release would serve. A table may be in one of both alone."""
        restored, live = self._rows(self.beside), self._rows(self.live) if self.running() else None
        tables = sorted({*restored, *(live or {})})
        lost = None if live is None else sum(max(0, live.get(name, 0) - restored.get(name, 0)) for name in tables)
        found: Any = self.beside.query(REPLAYED)
        reached = moment(found["at"]) if found["at"] else moment(recovery.chain[-1].ended)
        self._ensure_roles(self.beside)
        entry = self._fitting(recovery)
        current = self.state.ledger().current()
        return {
            "reached": stamp(reached),
            "lost_seconds": round((datetime.now(UTC) - reached).total_seconds(), 1),
            "rows": {name: {"live": (live or {}).get(name), "restored": restored.get(name)} for name in tables},
            "lost_rows": "unknown" if lost is None else lost,
            "entry": entry.number,
            "release": entry.release,
            "serves_now": current.release if current else "",
            "served": current.number if current else 0,
            "system": self.beside.system(),
        }

    def _rows(self, server: PostgresServer) -> dict[str, int]:
        name = self.options["database"]
        if not server.query(THERE.format(name=literal(name))):
            return {}
        tables: Any = server.query(digests.TABLES, name)
        found: Any = server.query(digests.counts_sql(tables), name)
        return dict(found)

    def _fitting(self, recovery: Recovery) -> Entry:
        """The release that fits the schema of that moment, as it says itself. Raises BackupError."""
        ledger, host = self.state.ledger(), LocalRuntime(self.state)
        workload = recorded_workload(self.state, host, ledger.current())
        environment = workload["environment"] | {"TITANIC_DATABASE_HOST": str(self.beside.socket_directory)}
        command = [workload["command"][0], "check"]
        _, said, complaint = host.execute(
            workload["image"], command, environment, workload["secret_files"], CHECK_SECONDS
        )
        try:
            schema = LiveSchema.of_check(said, complaint)
        except RollbackRefusedError as error:
            raise BackupError(
                f"titanic_restore_to: the schema of '{recovery.target.text}' cannot be read ({complaint or said}). "
                f"Name another moment."
            ) from error
        entry = ledger.fitting(schema)
        if entry is None:
            raise BackupError(
                f"titanic_restore_to: at '{recovery.target.text}' the schema was {schema.revision or 'none'}, with "
                f"which no recorded release can live. Name another moment."
            )
        recorded_workload(self.state, host, entry)
        return entry

    def begin_maintenance(self) -> int:
        """Have users be told, and wait until nobody is being answered: how many are left."""
        if maintenance.current(self.state) is None:
            told = Maintenance(MESSAGE, RETRY_SECONDS, self.options["by"], f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
            maintenance.begin(told, self.state)
        with suppress(OSError, http.client.HTTPException):
            return maintenance.wait_until_idle(self.state, self.options["drain_seconds"])
        return 0

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
        self._record({**plan, "timeline_before": before}, kept)
        self._clear_place()
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
        self._ensure_roles(self.live)

    def _ensure_roles(self, server: PostgresServer) -> None:
        """Passwords and logins are those of now, whatever they were at that moment."""
        rotation = self.state.rotation()
        passwords = roles.read_passwords(self.options, rotation.logins)
        retired = [f"{self.options['user']}{login}" for login in rotation.unused]
        roles.ensure_roles(server, self.options, passwords, retired=retired, check=False)

    def _record(self, plan: Mapping[str, Any], kept: Path) -> None:
        facts = {key: plan[key] for key in RECORDED if key in plan}
        facts |= {"by": self.options["by"], "served": plan["served"], "kept": kept.name if kept.exists() else ""}
        self.state.write_ledger(self.state.ledger().with_event("restore", **facts))
        # What they told of the schema and the seed is not so any more.
        for name in ("migrate.json", "seed.json"):
            (self.state.answers / name).unlink(missing_ok=True)

    def plan_way_back(self, *, check: bool) -> dict[str, Any]:
        """The data that the last restore replaced are to serve again. Raises BackupError where there are none."""
        event, current = self.state.ledger().last_event("restore"), self.state.ledger().current()
        data = self.state.database / str(event["kept"]) if event and event["kept"] else None
        if event is None or data is None or not data.is_dir():
            raise BackupError("titanic_restore_to: previous: no data of before a restore are kept")
        maintained = maintenance.current(self.state) is not None
        plan = {"to": PREVIOUS, "data": str(data), "entry": event["served"], "restored_at": event["at"]}
        plan |= {"served": current.number if current else 0, "maintained": maintained}
        if not check:
            self.clear()
            make_directory(self.place, 0o755)
            self._note(plan)
        return plan

    def discard(self, *, check: bool) -> list[str]:
        """Remove the data that restores have replaced: their names. Raises OSError."""
        found = kept_data(self.state)
        if not check:
            for path in found:
                shutil.rmtree(path)
        return [path.name for path in found]

    def _clear_place(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)

    def clear(self) -> bool:
        """Remove what was planned and not switched to; whether there was any. Raises DatabaseError."""
        there = self.place.exists()
        if there:
            self.beside.stop()
            self._clear_place()
        return there


def kept_data(state: State) -> list[Path]:
    """The data that restores have replaced, oldest first."""
    return sorted(state.database.glob(f"{KEPT}*"))
