# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill of a Compose target: the newest backup in a container of its own, up to now, compared with what serves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.backups import ComposeBackups
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.recovery import (
    RECOVERY_SECONDS,
    ContainerRecovery,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.drill import (
    BOUNDS,
    compare,
    live_digests,
    result,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.archiving import EXPOSED
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import ADMINISTRATOR
from ansible_collections.whitestar.deploy.plugins.module_utils.release import pgbackrest
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import BackupError, Target, lsn_of

VOLUME = "drill"


class Drill:
    """One drill of a deployment."""

    def __init__(self, backups: ComposeBackups, database: str, settings: Mapping[str, Any]) -> None:
        self.backups, self.engine = backups, backups.engine
        self.database, self.settings = database, settings
        self.project = Project.of(backups.state, backups.engine)

    def run(self) -> dict[str, Any]:
        """Restore, compare, check, take away: what was found. Raises BackupError, EngineError, OSError."""
        live = self.backups.server()
        told = self.backups.told()
        self.backups.refuse_others(told)
        system, _ = self.backups.live_system()
        report("verify the repository")
        self.verify()
        rpo: Any = live.query(EXPOSED)
        found = live_digests(live, self.database)
        self.backups.archive_now()
        checkpoint: Any = live.query("SELECT json_build_object('timeline', timeline_id) FROM pg_control_checkpoint()")
        timeline = int(checkpoint["timeline"])
        target = Target(found["name"], point=found["name"], lsn=lsn_of(found["tables"]["point"]), timeline=timeline)
        recovery = ContainerRecovery(self.backups, "drill", VOLUME, target, lasting=False)
        number, base = recovery.choose(told, system, timeline)
        recovery.require_room(base)
        try:
            began = time.monotonic()
            self.project.claim(VOLUME)
            recovery.unpack(number, base)
            recovery.recover({**self.settings, **BOUNDS})
            seconds = time.monotonic() - began
            compare(recovery.server, self.database, found["tables"])
            self._amcheck(recovery.container)
        finally:
            recovery.remove()
        return result(base.label, found["tables"], float(rpo["seconds"]), seconds)

    def verify(self) -> None:
        """Read all that is in the repositories. Raises BackupError that names what is damaged or missing."""
        for number in range(1, len(self.backups.settings["repositories"]) + 1):
            words = [f"--repo={number}", "--output=text", "--verbose", "verify"]
            if problem := pgbackrest.verify_problem(self.backups.run("rest", *words, seconds=RECOVERY_SECONDS)):
                raise BackupError(problem)

    def _amcheck(self, container: str) -> None:
        report("check heaps and indexes")
        words = ["pg_amcheck", "-U", ADMINISTRATOR, "--no-password", "--all", "--install-missing", "--heapallindexed"]
        try:
            self.engine.run("exec", container, *words, seconds=RECOVERY_SECONDS)
        except EngineError as error:
            raise BackupError(f"what was restored is damaged: {error}") from error
