"""The read cache: responses of the two hottest reads, none of which is older than the read that it answers.

How that is proved. ``pg_current_snapshot()`` names exactly what a statement can see: within one life of a server, two
statements with equal snapshots see equal data, since whatever changed something took a transaction id and so moves the
snapshot when it ends. So

1. every body is cached under the snapshot that the very statement that read it ran under;
2. every read waits for a snapshot check that *starts* after the read began (``SingleFlight``), so that a write which
   was acknowledged before changes what the check returns; a cached body answers only if its snapshot is that one;
3. after a crash, transaction ids that never reached the disk are used again. A crash closes every connection. The
   checks go through one connection, and with its loss the cache is emptied, whatever its entries were read through.

Readers that arrive together share one check, so its cost falls as the load rises. There are no triggers, and writers do
nothing for it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Generic, NamedTuple, NoReturn, TypeVar

from titanic_api.db import Database, Session
from titanic_api.errors import DatabaseUnavailable, Fault
from titanic_api.people import store
from titanic_api.people.model import Rendered, render_people, render_person

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_CACHED_PEOPLE = 4096
MAX_CACHED_LIST_BYTES = 32 * 1024 * 1024


class _Call(Generic[K, V]):
    def __init__(self) -> None:
        self.keys: set[K] = set()
        self.callers = 0
        self.done = threading.Event()
        self.result: V
        self.error: Exception | None = None


class SingleFlight(Generic[K, V]):
    """Lets concurrent callers share one call of ``function``, and never one that began before they came.

    Who comes while a call runs waits for the next one, which begins when that has ended; so much is stricter than the
    usual single-flight. ``function`` gets the keys that the callers of a call ask for (a set, possibly empty) and when
    the first of them must have an answer, on the monotonic clock; it returns what they share.
    """

    def __init__(self, function: Callable[[set[K], float], V]) -> None:
        self._function = function
        self._next: _Call[K, V] = _Call()
        self._lock = threading.Lock()
        self._running = threading.Lock()

    def call(self, deadline: float, key: K | None = None) -> V:
        """Wait for a call that has not started yet, and return its result. Raises DatabaseUnavailable."""
        with self._lock:
            call = self._next
            if key is not None:
                call.keys.add(key)
            call.callers += 1
            leader = call.callers == 1
        if leader:
            self._run(call, deadline)
        elif not call.done.wait(deadline - monotonic()):
            _raise_unavailable()
        if call.error is not None:
            raise call.error
        return call.result

    def _run(self, call: _Call[K, V], deadline: float) -> None:
        running = self._running.acquire(timeout=max(0.0, deadline - monotonic()))
        try:
            with self._lock:
                # From here on nobody joins: whoever comes now must not share what starts now.
                self._next = _Call()
            call.result = self._function(call.keys, deadline) if running else _raise_unavailable()
        except Exception as error:  # noqa: BLE001 (every caller raises it)
            call.error = error
        except BaseException:
            call.error = DatabaseUnavailable(Fault("database", "the read was given up; try again"))
            raise
        finally:
            if running:
                self._running.release()
            call.done.set()


def _raise_unavailable() -> NoReturn:
    raise DatabaseUnavailable(Fault("database", "does not answer; try again"))


class SnapshotCheck(NamedTuple):
    """What one check tells its callers: the snapshot it saw, and those of the people asked for who exist."""

    snapshot: str
    found: dict[str, Rendered]


class ReadCache:
    """Reads of one person and of everybody, ``max_people`` at most. Strict unless ``max_stale`` seconds are allowed."""

    def __init__(self, database: Database, max_people: int, max_stale: float = 0.0) -> None:
        self._database = database
        self._max_people = max_people
        self._max_stale = max_stale
        self._check_session: Session | None = None
        self._snapshot: str | None = None
        self._checked_at = -float("inf")
        self._people: OrderedDict[str, Rendered] = OrderedDict()  # all of them read under self._snapshot
        self._everybody: tuple[str, Rendered] | None = None  # with the snapshot it was read under
        self._checks: SingleFlight[str, SnapshotCheck] = SingleFlight(self._check)
        self._lists: SingleFlight[str, Rendered] = SingleFlight(self._read_everybody)

    def person(self, uuid: str) -> Rendered:
        """One person; ``uuid`` in lower case. Raises PersonNotFound or DatabaseUnavailable."""
        if self._fresh_enough() and (cached := self._people.get(uuid)) is not None:
            return cached
        found = self._checks.call(self._database.deadline(), uuid).found.get(uuid)
        if found is None:
            raise store.not_found(uuid)
        return found

    def everybody(self) -> Rendered:
        """The whole list. Raises DatabaseUnavailable, and ListTooLong for more people than one answer may hold."""
        deadline = self._database.deadline()
        snapshot = self._snapshot if self._fresh_enough() else self._checks.call(deadline).snapshot
        cached = self._everybody
        # Compared with what *this* read's check saw: a slow reading of the list may have ended since, and be older.
        if cached is not None and cached[0] == snapshot:
            return cached[1]
        return self._lists.call(deadline)

    def _fresh_enough(self) -> bool:
        return self._max_stale > 0 and monotonic() - self._checked_at < self._max_stale

    def _check(self, uuids: set[str], deadline: float) -> SnapshotCheck:
        started = monotonic()
        try:
            if self._check_session is not None and self._check_session.has_gone():
                self._clear()
            if self._check_session is None:
                self._check_session = self._database.open(deadline)
            self._check_session.allow_until(deadline)
            check = self._read(self._check_session, uuids)
        except BaseException:
            self._clear()
            raise
        self._checked_at = started
        return check

    def _read(self, session: Session, uuids: set[str]) -> SnapshotCheck:
        missing = self._missing(uuids)
        if not missing:
            self._set_snapshot(store.snapshot(session))
            missing = self._missing(uuids)
        if missing:
            snapshot, people = store.people_by_uuid(session, missing)
            if snapshot != self._snapshot and missing != uuids:
                # Something changed, so those that were cached have to be read again, together with the others.
                snapshot, people = store.people_by_uuid(session, uuids)
            self._set_snapshot(snapshot)
            self._people.update((uuid, render_person(uuid, person)) for uuid, person in people.items())
        assert self._snapshot is not None
        check = SnapshotCheck(self._snapshot, {uuid: self._people[uuid] for uuid in uuids if uuid in self._people})
        for uuid in check.found:
            self._people.move_to_end(uuid)
        while len(self._people) > MAX_CACHED_PEOPLE:
            self._people.popitem(last=False)
        return check

    def _missing(self, uuids: set[str]) -> set[str]:
        # Not by set operations, which would walk through everybody who is cached.
        return {uuid for uuid in uuids if uuid not in self._people}

    def _set_snapshot(self, snapshot: str) -> None:
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self._people = OrderedDict()

    def _read_everybody(self, _: set[str], deadline: float) -> Rendered:
        before = self._check_session
        with self._database.session(deadline) as session:
            snapshot, people = store.all_people(session, self._max_people)
            everybody = render_people(people)
        # Cached only if the connection of the checks has lived since before this was read (see 3 above).
        if before is not None and before is self._check_session and len(everybody.body) <= MAX_CACHED_LIST_BYTES:
            self._everybody = snapshot, everybody
        return everybody

    def _clear(self) -> None:
        self._snapshot = None
        self._people = OrderedDict()
        self._everybody = None
        self._checked_at = -float("inf")
        if self._check_session is not None:
            self._check_session.close()
            self._check_session = None
