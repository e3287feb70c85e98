# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups as every provider has them: what one is, which are kept, which a restore needs, and what is overdue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Ledger

# How long a schedule lets pass between two backups; one that is late by half as much again is overdue.
SCHEDULES = {"hourly": timedelta(hours=1), "daily": timedelta(days=1), "weekly": timedelta(weeks=1)}
LATE = 1.5
# Of the key of backups, in characters.
SHORTEST_KEY = 32
LATEST, PREVIOUS, DISCARD = "latest", "previous", "discard"
# What a restore point may be called (pg_create_restore_point allows 63 bytes).
POINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*")


class BackupError(RuntimeError):
    """A backup, a restore or a drill cannot be done; the message says why and what to do. Nothing was touched."""


@dataclass(frozen=True)
class Backup:
    """A base backup. ``prior`` is the one that an incremental backup builds on; times are UTC in ISO 8601.

    ``start_lsn`` and ``stop_lsn`` bound the WAL without which it is of no use, of ``timeline``, in segments of
    ``segment_bytes``; ``bytes`` is what it holds and ``sealed`` what it takes in the repository.
    """

    label: str
    kind: str
    prior: str
    started: str
    ended: str
    timeline: int
    start_lsn: int
    stop_lsn: int
    segment_bytes: int
    bytes: int
    sealed: int
    major: int
    system: str

    def __str__(self) -> str:
        return f"{self.label} ({self.kind}, {self.sealed / 2**20:.1f} MiB, ended {self.ended})"


@dataclass(frozen=True)
class Target:
    """The moment that a restore goes to: one of ``time``, ``point`` and ``latest``.

    ``lsn`` and ``timeline`` are those of a restore point, which the ledger has.
    """

    text: str
    time: datetime | None = None
    point: str = ""
    lsn: int = 0
    timeline: int = 0

    @property
    def latest(self) -> bool:
        """Whether it is the end of all WAL there is."""
        return self.time is None and not self.point


def lsn_of(text: str) -> int:
    """An LSN as PostgreSQL writes it, such as ``0/3000028``, in bytes."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def segment_name(timeline: int, lsn: int, segment_bytes: int) -> str:
    """The file of WAL that holds this byte."""
    segments = 2**32 // segment_bytes
    number = lsn // segment_bytes
    return f"{timeline:08X}{number // segments:08X}{number % segments:08X}"


@dataclass(frozen=True)
class Lineage:
    """How a timeline came about: (timeline, LSN at which it begins), oldest first, from the history of the last one."""

    begins: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, timeline: int, history: str = "") -> Lineage:
        """From the text of its ``.history`` file; empty for a timeline that has none."""
        begins, begin = [], 0
        for line in history.splitlines():
            fields = line.split()
            if len(fields) >= 2 and fields[0].isdecimal():
                begins.append((int(fields[0]), begin))
                begin = lsn_of(fields[1])
        return cls((*begins, (timeline, begin)))

    @property
    def timeline(self) -> int:
        """The last one."""
        return self.begins[-1][0]

    def reaches(self, backup: Backup) -> bool:
        """Whether the WAL goes on from this backup to the last timeline."""
        ends = [begin for _, begin in self.begins[1:]]
        left = dict(zip((timeline for timeline, _ in self.begins[:-1]), ends, strict=True))
        return backup.timeline == self.timeline or backup.stop_lsn <= left.get(backup.timeline, -1)

    def segment(self, lsn: int, segment_bytes: int) -> str:
        """The file of WAL that a recovery along these timelines reads there: that of the newest one that has begun."""
        number = lsn // segment_bytes
        timeline = max(timeline for timeline, begin in self.begins if begin // segment_bytes <= number)
        return segment_name(timeline, lsn, segment_bytes)


def missing_segments(names: Iterable[str], backup: Backup, lineage: Lineage | None = None) -> list[str]:
    """The files of WAL that are missing between a backup's start and the newest one along its lineage."""
    line, size = lineage or Lineage.of(backup.timeline), backup.segment_bytes
    known = {name for name in names if re.fullmatch(r"[0-9A-F]{24}", name)}
    lsn = backup.start_lsn
    found: list[str] = []
    wait: list[str] = []
    while True:
        name = line.segment(lsn, size)
        if name in known:
            found, wait = [*found, *wait], []
        else:
            wait.append(name)
            # Nothing later is there: what is missing now has not been written yet, or is the backup's own.
            if not any(other > name and line.segment(_lsn(other, size), size) == other for other in known):
                return found + [name for name in wait if name <= line.segment(max(backup.stop_lsn - 1, 0), size)]
        lsn += size


def _lsn(name: str, segment_bytes: int) -> int:
    return int(name[8:16], 16) * 2**32 + int(name[16:], 16) * segment_bytes


def chain(backups: Mapping[str, Backup], label: str) -> list[Backup]:
    """The full backup and those that build on it, up to this one. Raises BackupError where one is missing."""
    found: list[Backup] = []
    while label:
        if label not in backups:
            raise BackupError(f"backup {label} is missing, and {found[-1].label} builds on it. Name an earlier moment.")
        found.append(backups[label])
        label = backups[label].prior
    return found[::-1]


def expired(backups: Sequence[Backup], keep_full: int, keep_days: float, now: datetime) -> list[Backup]:
    """The backups that neither the count nor the age keeps, newest first, so that none outlives what it builds on.

    A full backup is kept as long as there are not ``keep_full`` newer ones, or a moment of the last ``keep_days`` days
    needs it; an incremental one goes with the full one that it builds on.
    """
    fulls = sorted((each for each in backups if each.kind == "full"), key=lambda each: each.label, reverse=True)
    horizon = now - timedelta(days=keep_days)
    # The newest full backup that ended before the horizon is needed for the moments after it.
    needed = next((full.label for full in fulls if moment(full.ended) <= horizon), fulls[-1].label if fulls else "")
    gone = {full.label for full in fulls[keep_full:] if full.label < needed}
    known = {each.label: each for each in backups}
    found = []
    for each in sorted(backups, key=lambda each: each.label, reverse=True):
        first = each
        while first.prior in known:
            first = known[first.prior]
        if first.label in gone:
            found.append(each)
    return found


def parse_target(text: str, ledger: Ledger) -> Target:
    """``latest``, a time with its zone, ``release NAME`` or the name of a restore point. Raises BackupError."""
    variable = "titanic_restore_to"
    if not text.strip():
        raise BackupError(
            f"{variable}: it names no moment. Give latest, a time, release NAME, or a restore point's name."
        )
    if text == LATEST:
        return Target(text)
    if _TIME.fullmatch(text):
        try:
            time = datetime.fromisoformat(text)
        except ValueError as error:
            raise BackupError(f"{variable}: '{text}' is not a time ({error}). Write 2026-11-30T12:00:00Z.") from error
        if time.tzinfo is None:
            raise BackupError(f"{variable}: '{text}' has no time zone. Write it as {text.replace(' ', 'T')}Z for UTC.")
        return Target(text, time=time.astimezone(UTC))
    name = text
    if text.startswith("release "):
        name = _point_of_release(text.partition(" ")[2].strip(), ledger)
    found = ledger.last_event("point", name=name)
    if not found:
        names = ", ".join(dict.fromkeys(each["name"] for each in reversed(ledger.events) if each["kind"] == "point"))
        raise BackupError(f"{variable}: there is no restore point '{name}' (restore points: {names or 'none'})")
    return Target(text, point=name, lsn=lsn_of(found["lsn"]), timeline=found["timeline"])


def _point_of_release(name: str, ledger: Ledger) -> str:
    known = {entry.release: entry for entry in ledger.entries if entry.restores is None and entry.outcome != "failed"}
    matches = [entry for release, entry in known.items() if name and release.startswith(name)]
    if len(matches) != 1:
        what = "is not in the ledger" if not matches else "fits more than one release"
        raise BackupError(f"titanic_restore_to: release '{name}' {what} (releases: {', '.join(known) or 'none'})")
    if not matches[0].point:
        raise BackupError(
            f"titanic_restore_to: release {matches[0].release} has no restore point, since backups were off when it "
            f"was deployed. Name a time, such as {matches[0].at}"
        )
    return matches[0].point


def base_of(target: Target, backups: Iterable[Backup], lineage: Lineage) -> Backup:
    """The newest backup from which this moment can be reached. Raises BackupError where there is none."""
    every = sorted(backups, key=lambda each: each.label)
    if not every:
        raise BackupError("titanic_backup_repositories: the repository holds no backup. Make one (--tags backup).")
    known = [each for each in every if lineage.reaches(each)]
    earliest = f"the first backup ended at {every[0].ended}"
    if target.time is not None:
        known = [each for each in known if moment(each.ended) <= target.time]
    elif target.point:
        known = [each for each in known if each.stop_lsn <= target.lsn]
        earliest = f"no backup is older than it; {earliest}"
    if not known:
        raise BackupError(f"titanic_restore_to: '{target.text}' cannot be reached, {earliest}. Name a later moment.")
    return known[-1]


def moment(text: str) -> datetime:
    """A time of ours, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def stamp(time: datetime | None = None) -> str:
    """A time as records have it, to the microsecond that PostgreSQL has: cut shorter, it may lie before its commit."""
    return (time or datetime.now(UTC)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def overdue(ledger: Ledger, settings: Mapping[str, Any], now: datetime) -> Iterator[str]:
    """One sentence for each of backup and drill that is older than the settings allow."""
    backup = ledger.last_event("backup")
    limit = SCHEDULES[settings["schedule"]] * LATE
    if not backup:
        yield "backups are on and there is none yet. Make one (--tags backup)."
    elif (age := now - moment(backup["at"])) > limit:
        yield f"the newest backup is {days(age)} old, titanic_backup_schedule is {settings['schedule']}: --tags backup"
    drill = ledger.last_event("drill", outcome="succeeded")
    since = drill or ledger.last_event("backup_first") or {"at": stamp(now)}
    if (age := now - moment(since["at"])) > timedelta(days=settings["drill_max_days"]):
        what = f"the last good drill was {days(age)} ago" if drill else f"no drill has been good for {days(age)}"
        limit_days = f"titanic_drill_max_days is {settings['drill_max_days']:g}"
        yield f"{what}, {limit_days}: prove that backups restore (--tags drill)"


def days(age: timedelta) -> str:
    """A span of time for people."""
    hours = age.total_seconds() / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"
