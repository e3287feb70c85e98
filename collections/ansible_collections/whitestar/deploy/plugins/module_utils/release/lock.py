# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy lock: one run at a time on a target; a dead owner's lease runs out."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import read_json, write_json
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Process


@dataclass(frozen=True)
class Owner:
    """Who holds the lock: a run of ansible-playbook, by host, user, pid and the pid's start time.

    ``until`` is the lease's end in seconds since the epoch; ``since`` its beginning.
    """

    host: str
    user: str
    pid: int
    started: int
    since: float = 0.0
    until: float = 0.0

    def same_run(self, other: Owner) -> bool:
        """Whether both name one run."""
        return (self.host, self.pid, self.started) == (other.host, other.pid, other.started)

    def gone(self, now: float) -> bool:
        """Whether the run has ended if it was on this machine, or the lease has run out if it was on another."""
        here = self.host == socket.gethostname()
        return Process.of(self.pid) != Process(self.pid, self.started) if here else now > self.until

    def __str__(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"{self.user}@{self.host} (process {self.pid}, since {since})"


def in_words(holder: Owner | None) -> str:
    """Who holds the lock, for people; ``free`` if nobody does."""
    if holder is None:
        return "free"
    return f"{holder}{', which has ended. The next run takes it over' if holder.gone(time.time()) else ''}"


class LockedError(RuntimeError):
    """Another run holds the lock; the message names it and says what to do."""

    @classmethod
    def of(cls, holder: Owner, now: float) -> LockedError:
        """That ``holder`` has it."""
        return cls(
            f"another run holds the deploy lock: {holder}. Wait for it. Its lease ends by itself "
            f"{max(0, holder.until - now):.0f} s from now if it died on another machine"
        )


class Lock:
    """The lock kept in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def holder(self) -> Owner | None:
        """Who holds it, alive or not."""
        found = read_json(self.path, None)
        try:
            return Owner(**found) if found else None
        except TypeError as error:
            raise ValueError(
                f"{self.path} is not a lock that this collection reads ({error}). Move it away."
            ) from error

    def acquire(self, owner: Owner, lease_seconds: float) -> Owner | None:
        """Take or renew the lock for ``owner``. Raises LockedError.

        Returns the dead owner that it was taken from, if any.
        """
        now = time.time()
        with self._exclusively():
            holder = self.holder()
            if holder and not holder.same_run(owner) and not holder.gone(now):
                raise LockedError.of(holder, now)
            lease = Owner(owner.host, owner.user, owner.pid, owner.started, since=now, until=now + lease_seconds)
            write_json(self.path, asdict(lease))
        return holder if holder and not holder.same_run(owner) else None

    def release(self, owner: Owner) -> bool:
        """Give the lock back if ``owner`` has it; whether it had."""
        if not self.path.exists():
            return False
        with self._exclusively():
            holder = self.holder()
            mine = holder is not None and holder.same_run(owner)
            if mine:
                self.path.unlink()
        return mine

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        handle = os.open(self.path.with_suffix(".guard"), os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
