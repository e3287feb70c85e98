# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server says of its archive of WAL."""

from __future__ import annotations

# The seconds of WAL that no repository has: none where all that was written is archived.
EXPOSED = """
SELECT json_build_object('seconds', CASE
    WHEN last_archived_wal >= pg_walfile_name(pg_current_wal_insert_lsn() - 1) THEN 0
    ELSE extract(epoch FROM now() - coalesce(last_archived_time, pg_postmaster_start_time())) END,
    'last', last_archived_wal, 'at', last_archived_time, 'failed', last_failed_time,
    'waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'))
FROM pg_stat_archiver
"""
