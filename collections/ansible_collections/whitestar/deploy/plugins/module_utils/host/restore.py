# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore of a host's database: what is the same for a process and a container. Planned beside, then switched to."""

from __future__ import annotations

import http.client
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import read_json, write_json
from ansible_collections.whitestar.deploy.plugins.module_utils.host import maintenance
from ansible_collections.whitestar.deploy.plugins.module_utils.host.runtime import Runtime, recorded_workload
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import digests, roles
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import Server, literal
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    PREVIOUS,
    Backup,
    BackupError,
    Target,
    moment,
    parse_target,
    stamp,
)
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
SYSTEM = "SELECT json_build_object('id', (SELECT system_identifier::text FROM pg_control_system()))"


class HostRestore:
    """One restore of a deployment. ``options`` are those of the modules local_restore and compose_restore.

    ``live`` is the database that serves, ``beside`` the one that is brought back, which releases reach at
    ``beside_environment`` instead.
    """

    live: Server
    beside: Server
    beside_environment: Mapping[str, str]

    def __init__(self, state: State, host: Runtime, options: Mapping[str, Any]) -> None:
        self.state, self.host = state, host
        self.place = state.root / "restore"
        # A switch does what was planned.
        planned = read_json(self.place / "plan.json", {}) if options["state"] == "switched" else {}
        self.planned: dict[str, Any] = planned.get("plan", {})
        self.options: dict[str, Any] = {**options, **planned.get("options", {})}

    def running(self) -> bool:
        """Whether the database that serves can be asked."""
        raise NotImplementedError

    def target(self) -> Target:
        """The moment that was asked for. Raises BackupError for one that cannot be."""
        if self.state.ledger().current() is None:
            raise BackupError(f"{NOTHING_YET}. Run the whole site first, which makes what a restored database needs.")
        found = parse_target(self.options["to"], self.state.ledger())
        if found.time is not None and found.time > datetime.now(UTC):
            raise BackupError(f"titanic_restore_to: '{found.text}' is yet to come. Name an earlier moment, or latest.")
        return found

    def timeline_at(self, time: datetime | None, newest: int) -> int:
        """The timeline that served at this time, where ``newest`` serves now."""
        found = newest
        for event in reversed(self.state.ledger().events):
            if event["kind"] == "restore" and time is not None and time < moment(event["at"]):
                found = event["timeline_before"]
        return found

    def note(self, plan: Mapping[str, Any]) -> None:
        """Keep a plan, and the options that a switch needs."""
        kept = {key: value for key, value in self.options.items() if key not in ("state", "system", "drain", "engine")}
        write_json(self.place / "plan.json", {"plan": plan, "options": kept}, 0o600)

    def compared(self, target: Target, base: Backup) -> dict[str, Any]:
        """What would be lost, and which release would serve. A table may be in one of both alone."""
        restored, live = self._rows(self.beside), self._rows(self.live) if self.running() else None
        tables = sorted({*restored, *(live or {})})
        lost = None if live is None else sum(max(0, live.get(name, 0) - restored.get(name, 0)) for name in tables)
        found: Any = self.beside.query(REPLAYED)
        system: Any = self.beside.query(SYSTEM)
        reached = moment(found["at"]) if found["at"] else moment(base.ended)
        self.ensure_roles(self.beside)
        entry = self._fitting(target)
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
            "system": system["id"],
        }

    def ensure_roles(self, server: Server) -> None:
        """Have passwords and logins be those of now, whatever they were at that moment. Raises OSError."""
        rotation = self.state.rotation()
        passwords = roles.read_passwords(self.options, rotation.logins)
        retired = [f"{self.options['user']}{login}" for login in rotation.unused]
        roles.ensure_roles(server, self.options, passwords, retired=retired, check=False)

    def _rows(self, server: Server) -> dict[str, int]:
        name = self.options["database"]
        if not server.query(THERE.format(name=literal(name))):
            return {}
        tables: Any = server.query(digests.TABLES, name)
        found: Any = server.query(digests.counts_sql(tables), name)
        return dict(found)

    def _fitting(self, target: Target) -> Entry:
        """The release that fits the schema of that moment, as it says itself. Raises BackupError."""
        ledger = self.state.ledger()
        workload = recorded_workload(self.state, self.host, ledger.current())
        environment = {**workload["environment"], **self.beside_environment}
        command = [workload["command"][0], "check"]
        _, said, complaint = self.host.execute(
            workload["image"], command, environment, workload["secret_files"], CHECK_SECONDS
        )
        try:
            schema = LiveSchema.of_check(said, complaint)
        except RollbackRefusedError as error:
            raise BackupError(
                f"titanic_restore_to: the schema of '{target.text}' cannot be read ({complaint or said}). "
                f"Name another moment."
            ) from error
        entry = ledger.fitting(schema)
        if entry is None:
            raise BackupError(
                f"titanic_restore_to: at '{target.text}' the schema was {schema.revision or 'none'}, with "
                f"which no recorded release can live. Name another moment."
            )
        recorded_workload(self.state, self.host, entry)
        return entry

    def begin_maintenance(self) -> int:
        """Have users be told, and wait until nobody is being answered: how many are left."""
        if maintenance.current(self.state) is None:
            told = Maintenance(MESSAGE, RETRY_SECONDS, self.options["by"], f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
            maintenance.begin(told, self.state)
        with suppress(OSError, http.client.HTTPException):
            return maintenance.wait_until_idle(self.state, self.options["drain_seconds"])
        return 0

    def maintained(self) -> bool:
        """Whether somebody has begun a maintenance, which is to go on then."""
        return maintenance.current(self.state) is not None

    def record(self, plan: Mapping[str, Any], kept: str) -> None:
        """The switch in the ledger; ``kept`` names the data that served, empty where there are none."""
        facts = {key: plan[key] for key in RECORDED if key in plan}
        facts |= {"by": self.options["by"], "served": plan["served"], "kept": kept}
        self.state.write_ledger(self.state.ledger().with_event("restore", **facts))
        # What they told of the schema and the seed is not so any more.
        for name in ("migrate.json", "seed.json"):
            (self.state.answers / name).unlink(missing_ok=True)

    def way_back(self) -> tuple[str, dict[str, Any]]:
        """The data that the last restore replaced, and the plan to have them serve. Raises BackupError for none."""
        event, current = self.state.ledger().last_event("restore"), self.state.ledger().current()
        if event is None or not event["kept"]:
            raise BackupError("titanic_restore_to: previous: no data of before a restore are kept")
        plan = {"to": PREVIOUS, "entry": event["served"], "restored_at": event["at"]}
        plan |= {"served": current.number if current else 0, "maintained": self.maintained()}
        return str(event["kept"]), plan

    def clear_place(self) -> None:
        """Remove the plan."""
        shutil.rmtree(self.place, ignore_errors=True)
