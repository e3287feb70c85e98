# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base backups of a local target: made with the server's own programs, never on a disk in clear, and expired."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import exclusively
from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.archiving import (
    restore_point,
    wal_not_archived,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    Backup,
    BackupError,
    expired,
    lsn_of,
    moment,
    segment_name,
    stamp,
)

BACKUP_SECONDS = 4 * 3600
ARCHIVE_SECONDS = 30
# How long a backup whose data are there waits for its WAL, and how often that is looked at.
WAL_SECONDS, LOOK_SECONDS = 300, 5
PHASE = "SELECT json_build_object('phase', (SELECT phase FROM pg_stat_progress_basebackup LIMIT 1))"
WAITS = "waiting for wal archiving to finish"


def server_of(repository: Repository) -> PostgresServer:
    """The database that the backups are of."""
    return PostgresServer(repository.state.database, Path(repository.settings["bindir"]), repository.owner)


def mark(server: PostgresServer, name: str, *, named: bool = False) -> dict[str, Any]:
    """Make a restore point, as an event of the ledger has it. Raises DatabaseError."""
    return {"name": name, "at": stamp(), "named": named, **restore_point(server, name)}


def archive_now(server: PostgresServer) -> None:
    """Have all WAL that was written so far in the repository. Raises BackupError if that takes too long."""
    if wanted := wal_not_archived(server, ARCHIVE_SECONDS):
        raise BackupError(
            f"titanic_backup_repositories: WAL {wanted} was not archived within {ARCHIVE_SECONDS} s: the server's "
            f"log in {server.directory / 'log'} says why"
        )


def next_kind(backups: Mapping[str, Backup], kind: str, full_days: float, now: datetime, timeline: int) -> str:
    """``full`` or ``incremental``, where ``auto`` leaves it open."""
    newest = max(backups.values(), key=lambda each: each.label, default=None)
    if newest is None or newest.timeline != timeline:
        return "full"
    if kind != "auto":
        return kind
    last_full = max(each.label for each in backups.values() if each.kind == "full")
    return "full" if now - moment(backups[last_full].ended) >= timedelta(days=full_days) else "incremental"


def make(repository: Repository, kind: str = "auto") -> Backup:
    """Make a base backup, complete or not at all. Raises BackupError, DatabaseError, OSError."""
    server = server_of(repository)
    if not (server.exists() and server.running()):
        raise BackupError("the database does not run, so that there is nothing to back up. Start it (--tags start).")
    repository.check(server.major(), server.system())
    if server.run_sql("SHOW archive_mode") != "on":
        raise BackupError("titanic_backup_enabled: the server does not archive yet. Run the whole site once (make up).")
    backups = repository.backups()
    control = server.control()
    timeline = int(control["Latest checkpoint's TimeLineID"])
    now = datetime.now(UTC)
    kind = next_kind(backups, kind, float(repository.settings["full_days"]), now, timeline)
    prior = max(backups) if kind == "incremental" else ""
    label = f"{now:%Y%m%dT%H%M%SZ}-{kind}"
    with exclusively(repository.state.backup):
        _remove_unfinished(repository)
        report(f"make backup {label}")
        found = _stream(repository, server, label, prior)
    ranges = found["manifest"]["WAL-Ranges"]
    backup = Backup(
        label=label,
        kind=kind,
        prior=prior,
        started=stamp(now),
        ended=stamp(),
        timeline=ranges[-1]["Timeline"],
        start_lsn=lsn_of(ranges[0]["Start-LSN"]),
        stop_lsn=lsn_of(ranges[-1]["End-LSN"]),
        segment_bytes=int(control["Bytes per WAL segment"]),
        bytes=found["bytes"],
        sealed=found["sealed"],
        major=server.major(),
        system=control["Database system identifier"],
    )
    repository.write_backup(backup)
    return backup


def _stream(repository: Repository, server: PostgresServer, label: str, prior: str) -> dict[str, Any]:
    words = ["pg_basebackup", *server.connection(), "-D", "-", "-F", "tar", "-X", "none", "-c", "fast", "-l", label]
    # Its manifest has PostgreSQL's own CRC-32C of each file, which finds an accident; AES-GCM finds what somebody did.
    words.append("--no-password")
    with tempfile.TemporaryDirectory(prefix="manifest-", dir=repository.settings["notes"]) as place:
        if prior:
            manifest = Path(place) / "backup_manifest"
            manifest.write_bytes(repository.run("read", f"backups/{prior}/backup_manifest"))
            # The server's account reads it, and nobody else comes in.
            if repository.owner:
                for path in (Path(place), manifest):
                    shutil.chown(path, *repository.owner)
            words.append(f"--incremental={manifest}")
        with tempfile.TemporaryFile() as complaints:
            source = subprocess.Popen(
                [str(server.bindir / words[0]), *words[1:]],
                stdout=subprocess.PIPE,
                stderr=complaints,
                stdin=subprocess.DEVNULL,
                **server.process(),
            )
            sink = subprocess.Popen(
                repository.command("take", f"backups/.{label}"),
                stdin=source.stdout,
                stdout=subprocess.PIPE,
                stderr=complaints,
                **repository.process(),
            )
            if source.stdout:
                source.stdout.close()
            try:
                said = _said(sink, server, label)
                codes = (source.wait(timeout=60), sink.returncode)
            except subprocess.TimeoutExpired as error:
                raise BackupError(f"backup {label}: pg_basebackup did not come to its end and was ended") from error
            finally:
                for process in (source, sink):
                    if process.poll() is None:
                        process.kill()
                        process.wait()
                if sink.stdout:
                    sink.stdout.close()
            if any(codes):
                complaints.seek(0)
                told = complaints.read().decode(errors="replace").strip()[-1500:]
                raise BackupError(f"backup {label} failed, nothing is left of it: {told}")
    return dict(json.loads(said))


def _said(sink: subprocess.Popen[bytes], server: PostgresServer, label: str) -> bytes:
    """What the program says that takes a backup, once it has all. Raises BackupError where its WAL is not archived.

    The server ends a backup when its WAL is in the repository, however long that takes.
    """
    began, waits = time.monotonic(), 0.0
    while True:
        try:
            return sink.communicate(timeout=LOOK_SECONDS)[0]
        except subprocess.TimeoutExpired as error:
            if time.monotonic() - began > BACKUP_SECONDS:
                raise BackupError(f"backup {label} took longer than {BACKUP_SECONDS} s and was ended") from error
        found: Any = server.query(PHASE)
        waits = waits + LOOK_SECONDS if found["phase"] == WAITS else 0.0
        if waits >= WAL_SECONDS:
            raise BackupError(
                f"titanic_backup_repositories: the WAL of backup {label} was not archived within {WAL_SECONDS} s. "
                f"See the server's log in {server.directory / 'log'}."
            )


def _remove_unfinished(repository: Repository) -> None:
    """What a backup that was cut off has left."""
    for path in (repository.root / "backups").glob(".*"):
        shutil.rmtree(path)


def expire(repository: Repository) -> list[str]:
    """Remove what neither count nor age keeps, and the WAL before it: the labels. Raises BackupError, OSError."""
    backups = repository.backups()
    settings = repository.settings
    keep = (int(settings["keep_full"]), float(settings["keep_days"]))
    gone = expired(list(backups.values()), *keep, datetime.now(UTC))
    for backup in gone:
        repository.remove(backup)
    left = [each for label, each in backups.items() if label not in {other.label for other in gone}]
    if left:
        first = min(segment_name(each.timeline, each.start_lsn, each.segment_bytes)[8:] for each in left)
        repository.remove_wal_before(f"00000000{first}")
    return [backup.label for backup in gone]
