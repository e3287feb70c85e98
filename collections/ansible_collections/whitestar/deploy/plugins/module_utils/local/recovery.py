# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database brought back beside the one that serves: in a directory of its own, up to a moment, on its own socket."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import make_directory, write_atomically
from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError, PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    Backup,
    BackupError,
    Lineage,
    Target,
    missing_segments,
)

RECOVERY_SECONDS = 3600
# What a recovery writes beside the data of the backup.
SPARE_MEBIBYTES = 200
LINKS_SINCE = 18  # pg_combinebackup --link
NOT_REACHED = "recovery ended before configured recovery target was reached"


@dataclass
class Recovery:
    """One database that is brought back below ``place``, from a chain of backups.

    ``lasting`` is whether it is to outlast a loss of power: a drill's is not.
    """

    repository: Repository
    place: Path
    target: Target
    chain: Sequence[Backup]
    lineage: Lineage
    lasting: bool = True

    def __post_init__(self) -> None:
        self.bindir = Path(self.repository.settings["bindir"])
        self.server = PostgresServer(self.place, self.bindir, self.repository.owner)

    def check(self, wal: set[str], *, archived: bool = True) -> None:
        """Refuse what cannot end well, before anything is made. Raises BackupError, OSError.

        ``archived`` is whether all WAL is in the repository that ever will be; its end may be on its way otherwise.
        """
        base = self.chain[-1]
        given_up = set(self.repository.given_up())
        missing = missing_segments(wal, base, self.lineage)
        if not self.target.latest:
            # Where in the WAL a time is, is known once it is reached.
            end = self.target.lsn if self.target.point else base.stop_lsn
            last = self.lineage.segment(max(end - 1, 0), base.segment_bytes)
            missing = [name for name in missing if name < last] + ([] if last in wal else [last])
        if not archived:
            missing = [name for name in missing if name < max(wal, default="")]
        if missing:
            why = "was given up while the repository was away" if missing[0] in given_up else "is missing"
            raise BackupError(
                f"the repository {self.repository.root}: WAL {missing[0]} {why}, and {len(missing) - 1} more. "
                f"Name a moment before that, or make a new backup (--tags backup)."
            )
        free = shutil.disk_usage(next(path for path in self.place.parents if path.exists())).free // 2**20
        if problem := room_problem(free, self.needed_mebibytes(), self.place):
            raise BackupError(problem)

    def needed_mebibytes(self) -> int:
        """The room that it takes at most."""
        whole = max(each.bytes for each in self.chain)
        parts = sum(each.bytes for each in self.chain) if len(self.chain) > 1 else 0
        return (whole + parts) // 2**20 + SPARE_MEBIBYTES

    def unpack(self) -> None:
        """The data directory as the backups have it, each checked against its manifest. Raises BackupError, OSError."""
        self.remove()
        owner = self.repository.owner
        make_directory(self.place, 0o755, owner)
        for name in ("run", "log", "parts"):
            make_directory(self.place / name, 0o700 if name != "run" else 0o755, owner)
        parts = []
        for backup in self.chain:
            report(f"unpack backup {backup.label}")
            part = self.server.data if len(self.chain) == 1 else self.place / "parts" / backup.label
            make_directory(part, 0o700, owner)
            self.repository.run("unpack", f"backups/{backup.label}/base.tar", str(part))
            self._program(backup, "pg_verifybackup", "--no-parse-wal", "--quiet", str(part))
            parts.append(str(part))
        if len(parts) > 1:
            report("combine the backups")
            words = ["--link"] if self.server.major() >= LINKS_SINCE else []
            words += [] if self.lasting else ["--no-sync"]
            self._program(self.chain[-1], "pg_combinebackup", *words, "--output", str(self.server.data), *parts)
        shutil.rmtree(self.place / "parts")

    def _program(self, backup: Backup, *words: str) -> None:
        try:
            self.server.run_program(list(words), seconds=RECOVERY_SECONDS)
        except DatabaseError as error:
            raise BackupError(f"backup {backup.label} is damaged: {error}") from error

    def recover(self, settings: Mapping[str, Any]) -> float:
        """Replay WAL up to the moment, and open for writing: the seconds it took. Raises BackupError.

        ``settings`` are the server's own beside ours.
        """
        report(f"replay WAL up to {self.target.text}")
        began = time.monotonic()
        # hot_standby: it answers only once the moment is reached and it has a timeline of its own.
        ours = {
            "archive_mode": "off",
            "hot_standby": "off",
            "restore_command": self.repository.shell("fetch", "%f", "%p"),
            "recovery_target_timeline": self.lineage.timeline,
            "recovery_target_action": "promote",
            **({} if self.lasting else {"fsync": "off"}),
            **self._until(),
        }
        automatic = self.server.data / "postgresql.auto.conf"
        # Whatever somebody has set there would overrule ours.
        kept = [line for line in automatic.read_text(encoding="utf-8").splitlines() if not line.startswith(tuple(ours))]
        write_atomically(automatic, "".join(f"{line}\n" for line in kept).encode(), 0o600, self.repository.owner)
        self.write_settings({**settings, **ours})
        write_atomically(self.server.data / "recovery.signal", b"", 0o600, self.repository.owner)
        try:
            self.server.start(RECOVERY_SECONDS)
            self._wait(began + RECOVERY_SECONDS)
        except DatabaseError as error:
            raise BackupError(self._told(str(error))) from error
        return time.monotonic() - began

    def _wait(self, deadline: float) -> None:
        """Wait until it answers. Raises DatabaseError when it has ended, or does not in time."""
        while self.server.running():
            with suppress(DatabaseError):
                self.server.run_sql("SELECT 1")
                return
            if time.monotonic() > deadline:
                raise DatabaseError(f"WAL was replayed for {RECOVERY_SECONDS} s without an end")
            time.sleep(0.1)
        raise DatabaseError("PostgreSQL has ended while WAL was replayed")

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Have the data directory's own configuration be this."""
        self.server.write_files(self.server.stale_files(settings), settings)

    def _until(self) -> dict[str, str]:
        if self.target.time is not None:
            return {"recovery_target_time": self.target.time.isoformat(sep=" ")}
        return {"recovery_target_name": self.target.point} if self.target.point else {}

    def _told(self, said: str) -> str:
        logs = sorted((self.place / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
        text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)
        if NOT_REACHED in text:
            return (
                f"titanic_restore_to: '{self.target.text}' is after the last WAL in {self.repository.root}. "
                f"Name an earlier moment, or latest."
            )
        reasons = [line.partition("titanic archive: ")[2] for line in text.splitlines() if "titanic archive: " in line]
        fatal = [line.partition("FATAL:")[2].strip() for line in text.splitlines() if "FATAL:" in line]
        return f"backup {self.chain[-1].label} does not restore: {'; '.join([*reasons[-1:], *fatal[-1:]]) or said}"

    def remove(self) -> None:
        """Stop it and take it away. Raises OSError, DatabaseError."""
        if not self.place.exists():
            return
        self.server.stop()
        shutil.rmtree(self.place)


def room_problem(free: int, needed: int, place: Path) -> str:
    """Why there is not enough room, in MiB, in one sentence; empty if there is."""
    if free >= needed:
        return ""
    return (
        f"titanic_state_directory: only {free} MiB are free on the disk of {place.parent}, "
        f"a restore needs {needed} MiB. Free some first."
    )
