# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill: the newest backup is restored beside what serves, up to now, and compared with it table by table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import exclusively
from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.host.drill import (
    BOUNDS,
    compare,
    live_digests,
    result,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.local.base_backup import archive_now, server_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError, PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.local.recovery import RECOVERY_SECONDS, Recovery
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.archiving import EXPOSED
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    BackupError,
    Target,
    base_of,
    chain,
    lsn_of,
)


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
        found = live_digests(self.live, self.database)
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
            compare(recovery.server, self.database, found["tables"])
            self._amcheck(recovery.server)
        finally:
            recovery.remove()
        return result(base.label, found["tables"], float(rpo["seconds"]), seconds)

    def _amcheck(self, server: PostgresServer) -> None:
        report("check heaps and indexes")
        words = ["pg_amcheck", *server.connection(), "--no-password", "--all", "--install-missing", "--heapallindexed"]
        try:
            server.run_program(words, seconds=RECOVERY_SECONDS)
        except DatabaseError as error:
            raise BackupError(f"what was restored is damaged: {error}") from error
