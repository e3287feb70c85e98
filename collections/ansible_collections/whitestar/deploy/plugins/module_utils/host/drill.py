# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill compares, whatever runs the two databases: each table's rows and their digest."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import digests
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import Server
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import BackupError

LOCK_TRIES = 25
# A drill takes no more memory than this for its pages, whatever the server that serves has.
BOUNDS = {"shared_buffers": "64MB", "max_parallel_workers": 0}
LOCKED = "lock timeout"


class StreamingServer(Server, Protocol):
    """A server whose answers may be longer than memory."""

    def stream_sql(self, sql: str, database: str) -> Iterator[bytes]:
        """The lines that ``sql`` prints. Raises RuntimeError at the end if it failed."""


def live_digests(server: StreamingServer, database: str) -> dict[str, Any]:
    """What the live database says of each table (``tables``), at a moment that its WAL has by ``name``.

    Raises BackupError where somebody keeps the tables locked.
    """
    report("read the live tables")
    name = f"drill-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    tables: Any = server.query(digests.TABLES, database)
    for _ in range(LOCK_TRIES):
        try:
            return {"name": name, "tables": _digests(server, database, tables, name)}
        except RuntimeError as error:
            if LOCKED not in str(error):
                raise
            time.sleep(0.2)
    raise BackupError("the tables could not be locked for a moment, somebody has them: try again later")


def compare(server: StreamingServer, database: str, live: Mapping[str, str]) -> None:
    """Hold a restored database to what the live one said. Raises BackupError that names the tables that differ."""
    report("compare with the live tables")
    tables: Any = server.query(digests.TABLES, database)
    if differs := digests.differing(live, _digests(server, database, tables)):
        raise BackupError(f"what was restored is not what the live database had: {'; '.join(differs[:5])}")


def _digests(server: StreamingServer, database: str, tables: list[str], point: str = "") -> dict[str, str]:
    return digests.read_digests(server.stream_sql(digests.digest_script(tables, point), database))


def result(label: str, tables: Mapping[str, str], rpo: float, rto: float) -> dict[str, Any]:
    """What the ledger has of a drill that was good."""
    return {
        "backup": label,
        "lsn": tables["point"],
        "tables": {name: told.partition(" ")[0] for name, told in tables.items() if "." in name},
        "rpo_seconds": round(rpo, 1),
        "rto_seconds": round(rto, 1),
    }
