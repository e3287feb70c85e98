# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill: the newest backup is restored beside what serves, up to now, and compared with it table by table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import exclusively
from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.local.base_backup import archive_now, server_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError, PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.local.recovery import RECOVERY_SECONDS, Recovery
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import digests
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.archiving import EXPOSED
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    BackupError,
    Target,
    base_of,
    chain,
    lsn_of,
)

LOCK_TRIES = 25
# A drill takes no more memory than this for its pages, whatever the server that serves has.
BOUNDS = {"shared_buffers": "64MB", "max_parallel_workers": 0}
LOCKED = "lock timeout"


class Drill:
    """One drill of a deployment."""

    def __init__(self, repository: Repository, database: str, settings: Mapping[str, Any]) -> None:
        self.repository, self.database, self.settings = repository, database, settings
        self.live = server_of(repository)
        self.place = repository.state.root / "drill"

    def run(self) -> dict[str, Any]:
        """Restore, compare, check, take away: what was found. Raises BackupError, DatabaseError, OSError."""
        if not (self.live.exists() and self.live.running()):
            raise BackupError("the database does not run, so that there is nothing to compare with: --tags start")
        record = self.repository.check(self.live.major(), self.live.system())
        backups = {name: each for name, each in self.repository.backups().items() if each.system == record["system"]}
        timeline = int(self.live.control()["Latest checkpoint's TimeLineID"])
        lineage = self.repository.lineage(timeline)
        base_of(Target("latest"), backups.values(), lineage)
        report("verify the repository")
        self.repository.verify(list(backups.values()))
        rpo: Any = self.live.query(EXPOSED)
        found = self._live_digests()
        archive_now(self.live)
        target = Target(found["name"], point=found["name"], lsn=lsn_of(found["tables"]["point"]), timeline=timeline)
        base = base_of(target, backups.values(), lineage)
        whole = chain(backups, base.label)
        recovery = Recovery(self.repository, self.place, target, whole, lineage, lasting=False)
        recovery.check(self.repository.wal())
        try:
            with exclusively(self.repository.state.backup):
                began = time.monotonic()
                recovery.unpack()
                recovery.recover({**self.settings, **BOUNDS})
                seconds = time.monotonic() - began
            self._compare(recovery.server, found["tables"])
            self._amcheck(recovery.server)
        finally:
            recovery.remove()
        return {
            "backup": base.label,
            "lsn": found["tables"]["point"],
            "tables": {name: told.partition(" ")[0] for name, told in found["tables"].items() if "." in name},
            "rpo_seconds": round(float(rpo["seconds"]), 1),
            "rto_seconds": round(seconds, 1),
        }

    def _live_digests(self) -> dict[str, Any]:
        """What the live database says of each table, at a moment that the WAL names."""
        report("read the live tables")
        name = f"drill-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        tables: Any = self.live.query(digests.TABLES, self.database)
        for _ in range(LOCK_TRIES):
            try:
                return {"name": name, "tables": self._digests(self.live, tables, name)}
            except DatabaseError as error:
                if LOCKED not in str(error):
                    raise
                time.sleep(0.2)
        raise BackupError("the tables could not be locked for a moment, somebody has them: try again later")

    def _digests(self, server: PostgresServer, tables: list[str], point: str = "") -> dict[str, str]:
        return digests.read_digests(server.stream_sql(digests.digest_script(tables, point), self.database))

    def _compare(self, server: PostgresServer, live: Mapping[str, str]) -> None:
        report("compare with the live tables")
        tables: Any = server.query(digests.TABLES, self.database)
        if differs := digests.differing(live, self._digests(server, tables)):
            raise BackupError(f"what was restored is not what the live database had: {'; '.join(differs[:5])}")

    def _amcheck(self, server: PostgresServer) -> None:
        report("check heaps and indexes")
        words = ["pg_amcheck", *server.connection(), "--no-password", "--all", "--install-missing", "--heapallindexed"]
        try:
            server.run_program(words, seconds=RECOVERY_SECONDS)
        except DatabaseError as error:
            raise BackupError(f"what was restored is damaged: {error}") from error
