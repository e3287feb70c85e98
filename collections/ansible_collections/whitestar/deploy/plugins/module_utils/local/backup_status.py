# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How backups of a local target stand, for people: the newest one, the archive of WAL, the last drill."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.base_backup import server_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.local.restore import kept_data
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.archiving import EXPOSED
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import BackupError, days, moment, overdue


def told_of(state: State) -> dict[str, str]:
    """Each in a few words. Raises BackupError, DatabaseError, OSError, ValueError."""
    repository = Repository.of(state)
    if repository is None:
        return {"newest": "off"}
    ledger, now = state.ledger(), datetime.now(UTC)
    drill = ledger.last_event("drill")
    newest = ledger.last_event("backup")
    found = {
        "newest": f"{newest['label']}, {days(now - moment(newest['at']))} ago" if newest else "none",
        "archive": _archive(repository),
        "drill": f"{drill['outcome']} {days(now - moment(drill['at']))} ago" if drill else "none",
    }
    if kept := kept_data(state):
        found["kept"] = ", ".join(path.name for path in kept)
    if late := warnings(state):
        found["overdue"] = "; ".join(late)
    return found


def warnings(state: State) -> list[str]:
    """What every run tells of: what is overdue, and WAL that was given up since the newest backup."""
    repository = Repository.of(state)
    if repository is None:
        return []
    ledger = state.ledger()
    found = list(overdue(ledger, repository.settings, datetime.now(UTC)))
    if ledger.last_event("backup_first", repository=str(repository.root)):
        try:
            repository.record()
            repository.check_right()
        except (BackupError, OSError, ValueError) as error:
            found.append(f"WAL is not archived and no backup is made: {error}")
    if given_up := repository.given_up():
        what = f"{len(given_up)} files of WAL were given up while the repository was away, the last one {given_up[-1]}"
        found.append(f"{what}: moments of then cannot be restored. Make a backup now (--tags backup).")
    return found


def _archive(repository: Repository) -> str:
    """How old the newest write is that no repository has."""
    try:
        repository.record()
        away = ""
    except BackupError as error:
        away = f"; {error}"
    server = server_of(repository)
    if not (server.exists() and server.running()):
        return f"the database does not run{away}"
    told: Any = server.query(EXPOSED)
    waits = f"{told['waiting']} files of WAL wait" if told["waiting"] else "nothing waits"
    return f"writes of the last {float(told['seconds']):.0f} s are in no repository; {waits}{away}"
