# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server says of its archive of WAL."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import Server, literal

POINT = """
SELECT json_build_object('lsn', pg_create_restore_point({name}),
    'timeline', (SELECT timeline_id FROM pg_control_checkpoint()))
"""
ARCHIVED = "SELECT json_build_object('last', last_archived_wal) FROM pg_stat_archiver"

# The seconds of WAL that no repository has: none where all that was written is archived.
EXPOSED = """
SELECT json_build_object('seconds', CASE
    WHEN last_archived_wal >= pg_walfile_name(pg_current_wal_insert_lsn() - 1) THEN 0
    ELSE extract(epoch FROM now() - coalesce(last_archived_time, pg_postmaster_start_time())) END,
    'last', last_archived_wal, 'at', last_archived_time, 'failed', last_failed_time,
    'waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'))
FROM pg_stat_archiver
"""


def restore_point(server: Server, name: str) -> dict[str, Any]:
    """Name this moment in the WAL: its ``lsn`` and ``timeline``."""
    found: Any = server.query(POINT.format(name=literal(name)))
    return dict(found)


def wal_not_archived(server: Server, seconds: float) -> str:
    """Have all WAL that was written so far in the repository: empty, or the file that was not taken in time."""
    # A commit, so that a moment between the last one and now can be recognised; and a new file of WAL.
    wanted = server.run_sql("SELECT pg_current_xact_id() IS NULL; SELECT pg_walfile_name(pg_switch_wal())").split()[-1]
    deadline = time.monotonic() + seconds
    while True:
        found: Any = server.query(ARCHIVED)
        if str(found["last"] or "")[:24] >= wanted:
            return ""
        if time.monotonic() > deadline:
            return wanted
        time.sleep(0.1)
