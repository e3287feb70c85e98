"""Creations that arrive together share one statement: one round trip, one commit, one flush of PostgreSQL's log.

Nobody is answered before the commit that holds his row, and nobody waits for company: whoever finds no statement under
way sends his at once; those who come while it runs make up the next one.
"""

from __future__ import annotations

import threading
from time import monotonic

from titanic_api.db import Database
from titanic_api.errors import DatabaseUnavailable, Fault, InvalidPerson, OutcomeUnknown
from titanic_api.people import store
from titanic_api.people.model import Person


class _Batch:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.sent = False
        self.done = threading.Event()
        self.error: Exception | None = None


class WriteBatcher:
    """Adds people, those who come together in one batch. Made once in each worker; safe for greenlets and threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next = _Batch()
        self._lock = threading.Lock()
        self._sending = threading.Lock()

    def create(self, uuid: str, person: Person, body: bytes) -> None:
        """Add one person, whose JSON is ``body``; return when it is committed.

        Raises InvalidPerson, DatabaseUnavailable (nothing was written), OutcomeUnknown.
        """
        deadline = self._database.deadline()
        with self._lock:
            batch = self._next
            batch.bodies.append(body)
            leader = len(batch.bodies) == 1
        if leader:
            self._send(batch, deadline)
        elif not batch.done.wait(max(0.0, deadline - monotonic())):
            self._leave(batch, body)
        if isinstance(batch.error, InvalidPerson) and len(batch.bodies) > 1:
            # The statement was refused as a whole. Alone, nobody is refused for a neighbour.
            with self._database.session(deadline) as session:
                store.insert(session, uuid, person)
        elif batch.error is not None:
            raise batch.error

    def _send(self, batch: _Batch, deadline: float) -> None:
        sending = False
        try:
            sending = self._sending.acquire(timeout=max(0.0, deadline - monotonic()))
            self._close(batch, sent=sending)
            if sending:
                with self._database.session(deadline) as session:
                    store.insert_all(session, batch.bodies)
            else:
                batch.error = _unavailable()
        except Exception as error:  # noqa: BLE001 (everybody in the batch raises it)
            batch.error = error
        except BaseException:
            batch.error = _unknown() if batch.sent else _unavailable()
            raise
        finally:
            self._close(batch, sent=batch.sent)
            if sending:
                self._sending.release()
            batch.done.set()

    def _close(self, batch: _Batch, *, sent: bool) -> None:
        with self._lock:
            batch.sent = sent
            if self._next is batch:
                self._next = _Batch()

    def _leave(self, batch: _Batch, body: bytes) -> None:
        with self._lock:
            if batch.sent:
                raise _unknown()
            batch.bodies.remove(body)
        raise _unavailable()


def _unavailable() -> DatabaseUnavailable:
    return DatabaseUnavailable(Fault("database", "does not answer; try again"))


def _unknown() -> OutcomeUnknown:
    what = "silent during the write, which may have happened; look before you repeat it"
    return OutcomeUnknown(Fault("database", what))
