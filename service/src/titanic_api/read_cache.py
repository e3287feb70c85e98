"""Finished responses of the two hottest reads, kept without ever being older than the read that they answer.

How that is proved. ``pg_current_snapshot()`` names exactly what a statement can see: within one life of a server, two
statements with equal snapshots see equal data, since whatever changed something took a transaction id and so moves the
snapshot when it ends. So

1. every body is kept under the snapshot that the very statement that read it ran under;
2. every read waits for a look at the snapshot that *starts* after the read began (``Flights``), so that a write which
   was acknowledged before moves what the look returns; a kept body answers only if its snapshot is that one;
3. after a crash, transaction ids that never reached the disk are used again. A crash closes every connection. The looks
   go through one connection, and with its loss all is forgotten, whatever it was read through.

Readers that arrive together share one look, so its cost falls as the load rises. There are no triggers, and writers do
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

KEPT_PEOPLE = 4096
KEPT_LIST_BYTES = 32 * 1024 * 1024


class _Flight(Generic[K, V]):
    def __init__(self) -> None:
        self.wanted: set[K] = set()
        self.passengers = 0
        self.landed = threading.Event()
        self.result: V
        self.error: Exception | None = None


class Flights(Generic[K, V]):
    """Lets callers share work that must start after they came: they board the next flight, and one is in the air.

    ``fly`` gets what all passengers of a flight ask for (a set, possibly empty) and when the first of them must have an
    answer, on the monotonic clock; it returns what they share.
    """

    def __init__(self, fly: Callable[[set[K], float], V]) -> None:
        self._fly = fly
        self._boarding: _Flight[K, V] = _Flight()
        self._gate = threading.Lock()
        self._runway = threading.Lock()

    def board(self, deadline: float, wanted: K | None = None) -> V:
        """Wait for a flight that has not started yet, and return its result. Raises DatabaseUnavailable."""
        with self._gate:
            flight = self._boarding
            if wanted is not None:
                flight.wanted.add(wanted)
            flight.passengers += 1
            pilot = flight.passengers == 1
        if pilot:
            self._take_off(flight, deadline)
        elif not flight.landed.wait(deadline - monotonic()):
            _give_up()
        if flight.error is not None:
            raise flight.error
        return flight.result

    def _take_off(self, flight: _Flight[K, V], deadline: float) -> None:
        free = self._runway.acquire(timeout=max(0.0, deadline - monotonic()))
        try:
            with self._gate:
                # From here on nobody boards: whoever comes now must not share what starts now.
                self._boarding = _Flight()
            flight.result = self._fly(flight.wanted, deadline) if free else _give_up()
        except Exception as error:  # noqa: BLE001 (every passenger raises it)
            flight.error = error
        except BaseException:
            flight.error = DatabaseUnavailable(Fault("database", "the read was given up; try again"))
            raise
        finally:
            if free:
                self._runway.release()
            flight.landed.set()


def _give_up() -> NoReturn:
    raise DatabaseUnavailable(Fault("database", "does not answer; try again"))


class Look(NamedTuple):
    """What one flight brings to its passengers: the snapshot it saw, and those of the people asked for who exist."""

    snapshot: str
    found: dict[str, Rendered]


class Reads:
    """Reads of one person and of everybody, ``most`` at most. Strict unless ``max_stale`` seconds are allowed."""

    def __init__(self, database: Database, most: int, max_stale: float = 0.0) -> None:
        self._database = database
        self._most = most
        self._max_stale = max_stale
        self._lane: Session | None = None
        self._snapshot: str | None = None
        self._looked_at = -float("inf")
        self._people: OrderedDict[str, Rendered] = OrderedDict()  # all of them read under self._snapshot
        self._everybody: tuple[str, Rendered] | None = None  # with the snapshot it was read under
        self._looks: Flights[str, Look] = Flights(self._look)
        self._lists: Flights[str, Rendered] = Flights(self._read_everybody)

    def person(self, uuid: str) -> Rendered:
        """One person; ``uuid`` in lower case. Raises PersonNotFound or DatabaseUnavailable."""
        if self._fresh_enough() and (kept := self._people.get(uuid)) is not None:
            return kept
        found = self._looks.board(self._database.deadline(), uuid).found.get(uuid)
        if found is None:
            raise store.not_found(uuid)
        return found

    def everybody(self) -> Rendered:
        """The whole list. Raises DatabaseUnavailable, and ListTooLong for more people than one answer may hold."""
        deadline = self._database.deadline()
        snapshot = self._snapshot if self._fresh_enough() else self._looks.board(deadline).snapshot
        kept = self._everybody
        # Compared with what *this* read's look saw: a slow reading of the list may have ended since, and be older.
        if kept is not None and kept[0] == snapshot:
            return kept[1]
        return self._lists.board(deadline)

    def _fresh_enough(self) -> bool:
        return self._max_stale > 0 and monotonic() - self._looked_at < self._max_stale

    def _look(self, wanted: set[str], deadline: float) -> Look:
        started = monotonic()
        try:
            if self._lane is not None and self._lane.has_gone():
                self._forget()
            if self._lane is None:
                self._lane = self._database.open(deadline)
            self._lane.allow_until(deadline)
            look = self._answer(self._lane, wanted)
        except BaseException:
            self._forget()
            raise
        self._looked_at = started
        return look

    def _answer(self, lane: Session, wanted: set[str]) -> Look:
        unknown = self._unknown(wanted)
        if not unknown:
            self._move_to(store.snapshot(lane))
            unknown = self._unknown(wanted)
        if unknown:
            snapshot, people = store.people_by_uuid(lane, unknown)
            if snapshot != self._snapshot and unknown != wanted:
                # Something changed, so those that were kept have to be read again, together with the others.
                snapshot, people = store.people_by_uuid(lane, wanted)
            self._move_to(snapshot)
            self._people.update((uuid, render_person(uuid, person)) for uuid, person in people.items())
        assert self._snapshot is not None
        look = Look(self._snapshot, {uuid: self._people[uuid] for uuid in wanted if uuid in self._people})
        for uuid in look.found:
            self._people.move_to_end(uuid)
        while len(self._people) > KEPT_PEOPLE:
            self._people.popitem(last=False)
        return look

    def _unknown(self, wanted: set[str]) -> set[str]:
        # Not by set operations, which would walk through everybody who is kept.
        return {uuid for uuid in wanted if uuid not in self._people}

    def _move_to(self, snapshot: str) -> None:
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self._people = OrderedDict()

    def _read_everybody(self, _: set[str], deadline: float) -> Rendered:
        lane = self._lane
        with self._database.session(deadline) as session:
            snapshot, people = store.all_people(session, self._most)
            everybody = render_people(people)
        # Kept only if the connection of the looks has lived since before this was read (see 3 above).
        if lane is not None and lane is self._lane and len(everybody.body) <= KEPT_LIST_BYTES:
            self._everybody = snapshot, everybody
        return everybody

    def _forget(self) -> None:
        self._snapshot = None
        self._people = OrderedDict()
        self._everybody = None
        self._looked_at = -float("inf")
        if self._lane is not None:
            self._lane.close()
            self._lane = None
