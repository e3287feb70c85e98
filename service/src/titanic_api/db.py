"""The only user of psycopg2: connections that wait no longer than they may, and a bounded pool of them.

The pool's connections run libpq asynchronously and wait in gevent (``psycopg2.extensions.set_wait_callback``). That
lets one worker serve others while a statement runs, and it is the only way to stop waiting for a database that hangs:
libpq itself would wait for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from select import POLLIN
from time import monotonic
from typing import Any, NamedTuple

import psycopg2
import psycopg2.errors
from gevent import monkey
from gevent.socket import wait_read, wait_write
from psycopg2 import extensions

from titanic_api.config import Settings
from titanic_api.errors import DatabaseUnavailable, Fault, InvalidPerson, OutcomeUnknown

log = logging.getLogger(__name__)

Row = tuple[Any, ...]
Error = psycopg2.Error
Cursor = extensions.cursor

# A request must be answered within the limit that users set, so the waiting ends a little earlier.
ANSWER_MARGIN_SECONDS = 0.25
LOCK_TIMEOUT_SECONDS = 1.0
NEVER = float("inf")
# Rows of a long list.
PIECE = 2000

_poll_of_the_system = monkey.get_original("select", "poll")


class Statement(NamedTuple):
    """An SQL statement that each connection prepares when it first needs it; parameters are ``$1`` and so on."""

    name: str
    types: tuple[str, ...]
    sql: str

    @property
    def execute(self) -> str:
        """What runs the prepared statement, with psycopg2's placeholders."""
        return f"EXECUTE {self.name}" + (f" ({', '.join(['%s'] * len(self.types))})" if self.types else "")

    @property
    def prepare(self) -> str:
        """What prepares it, once for each connection."""
        types = f" ({', '.join(self.types)})" if self.types else ""
        return f"PREPARE {self.name}{types} AS {self.sql}"


class Connection(extensions.connection):
    """A connection that waits until ``deadline`` for its server, and ``patience`` seconds for each piece of a result.

    So an answer must begin before the deadline, and a long one may take its time as long as it flows.
    """

    patience: float = 0.0
    deadline: float = NEVER

    def heard(self) -> None:
        """A piece has come."""
        self.deadline = max(self.deadline, monotonic() + self.patience)


def _wait(connection: extensions.connection) -> None:
    """Let other greenlets run until the server answers. Raises TimeoutError at the connection's deadline."""
    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        remaining = getattr(connection, "deadline", NEVER) - monotonic()
        if remaining <= 0:
            raise TimeoutError("the database is silent")
        timeout = None if remaining == NEVER else remaining
        if state == extensions.POLL_READ:
            wait_read(connection.fileno(), timeout=timeout)
            if isinstance(connection, Connection):
                connection.heard()
        else:
            wait_write(connection.fileno(), timeout=timeout)


def connect(settings: Settings, *, owner: bool = False, statement_timeout: float = 0.0) -> extensions.connection:
    """A plain blocking connection in autocommit mode, for the commands. Raises psycopg2.Error."""
    connection: extensions.connection = psycopg2.connect(
        **_parameters(settings, owner, f"-c statement_timeout={int(statement_timeout * 1000)}")
    )
    connection.autocommit = True
    return connection


def quoted_name(connection: extensions.connection, name: str) -> str:
    """A name of the database as SQL text."""
    return extensions.quote_ident(name, connection)


def _parameters(settings: Settings, owner: bool, options: str) -> dict[str, Any]:
    parameters = {
        "host": settings.database_host,
        "port": settings.database_port,
        "dbname": settings.database_name,
        "user": settings.database_owner if owner else settings.database_user,
        "password": settings.password(owner),
        "sslmode": settings.database_sslmode,
        "sslrootcert": None if settings.database_sslrootcert is None else str(settings.database_sslrootcert),
        "connect_timeout": 5,
        "tcp_user_timeout": 10_000,
        # With these, one that lies idle is known to be dead ten seconds after its server has gone in silence.
        "keepalives_idle": 2,
        "keepalives_interval": 1,
        "application_name": "titanic-api" if not owner else "titanic-api owner",
        "client_encoding": "UTF8",
        # A search_path of one's own, so that nobody's schema shadows ours.
        "options": options + " -c search_path=public,pg_temp -c timezone=UTC",
    }
    return {name: value for name, value in parameters.items() if value is not None}


class Session:
    """One connection, used by one greenlet at a time. Every statement commits by itself unless in ``transaction``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._prepared: set[str] = set()
        self._in_transaction = False
        self._deadline = NEVER

    @property
    def broken(self) -> bool:
        """Whether the connection is of no more use: closed, or left in the middle of something."""
        return bool(self._connection.closed) or self._in_transaction

    def has_gone(self) -> bool:
        """Whether an idle connection has something to read: the server only speaks unasked to say goodbye."""
        poll = _poll_of_the_system()
        poll.register(self._connection.fileno(), POLLIN)
        return bool(poll.poll(0))

    def allow_until(self, deadline: float) -> None:
        """Let each answer begin until this moment (on the monotonic clock)."""
        self._deadline = deadline

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def read(self, statement: Statement, *values: Any) -> list[Row]:
        """The rows of a statement that changes nothing. Raises DatabaseUnavailable."""
        return self._guarded(DatabaseUnavailable, self._run, statement, values)

    def write(self, statement: Statement, *values: Any) -> list[Row]:
        """The rows that a change returns. Raises OutcomeUnknown if the connection is lost, InvalidPerson if refused.

        Inside ``transaction`` a loss before the commit is a plain DatabaseUnavailable: nothing was written.
        """
        lost = DatabaseUnavailable if self._in_transaction else OutcomeUnknown
        return self._guarded(lost, self._run, statement, values)

    def query(self, sql: str, *values: Any) -> list[Row]:
        """The rows of a statement that is composed for one request; placeholders are ``%s``."""
        return self._guarded(DatabaseUnavailable, self._execute, sql, values)

    def read_in_pieces(self, what: Statement | str, *values: Any) -> Iterator[list[Row]]:
        """The rows of a statement of either kind that changes nothing, in pieces. Raises DatabaseUnavailable.

        Only one piece at a time takes the room of Python's objects, and nothing of it is kept with the connection.
        Between the pieces of a long list other requests of the worker have their turn.
        """
        with self._connection.cursor() as cursor:
            run = self._run if isinstance(what, Statement) else self._execute
            rows = self._guarded(DatabaseUnavailable, partial(run, cursor=cursor), what, values)
            while rows:
                yield rows
                if len(rows) < PIECE:
                    return
                time.sleep(0)
                rows = cursor.fetchmany(PIECE)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block does as one. Raises OutcomeUnknown if the connection is lost during the commit."""
        self.query("BEGIN")
        self._in_transaction = True
        try:
            yield
        except BaseException:
            if not self._connection.closed:
                self.query("ROLLBACK")
                self._in_transaction = False
            raise
        self._guarded(OutcomeUnknown, self._execute, "COMMIT", ())
        self._in_transaction = False

    def _run(self, statement: Statement, values: Sequence[Any], cursor: Cursor | None = None) -> list[Row]:
        if statement.name not in self._prepared:
            self._execute(statement.prepare, ())
            self._prepared.add(statement.name)
        return self._execute(statement.execute, values, cursor)

    def _execute(self, sql: str, values: Sequence[Any], cursor: Cursor | None = None) -> list[Row]:
        """The rows; with a ``cursor`` the first piece of them, of which it has the rest."""
        self._connection.deadline = self._deadline
        if cursor is not None:
            cursor.execute(sql, values or None)
            return cursor.fetchmany(PIECE)
        self._cursor.execute(sql, values or None)
        return self._cursor.fetchall() if self._cursor.description else []

    def _guarded(
        self, lost: type[DatabaseUnavailable], run: Callable[[Any, Sequence[Any]], list[Row]], what: Any, values: Any
    ) -> list[Row]:
        """Run a statement, and say in the domain's errors what went wrong: ``lost`` if it was the connection."""
        try:
            return run(what, values)
        except psycopg2.errors.CheckViolation as error:
            constraint = error.diag.constraint_name or ""
            raise InvalidPerson(Fault(constraint.removesuffix("_valid"), "refused by the database")) from error
        except (psycopg2.Error, TimeoutError) as error:
            log.warning("database: %s", str(error).strip() or type(error).__name__)
            if isinstance(error, TimeoutError):
                self._connection.close()
            # With the connection still there the server has said that the statement failed: nothing was written.
            kind = lost if self._connection.closed else DatabaseUnavailable
            raise kind(*_faults(kind)) from error


def _faults(lost: type[DatabaseUnavailable]) -> tuple[Fault, ...]:
    if issubclass(lost, OutcomeUnknown):
        return (Fault("database", "lost during the write, which may have happened; look before you repeat it"),)
    return (Fault("database", "does not answer; try again"),)


class FairSemaphore:
    """A fixed number of places, given to those who wait in the order in which they came.

    Another semaphore lets a newcomer take the place of the waiter that it has just woken, who then waits once more.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()

    def acquire(self, timeout: float) -> bool:
        """Take a place; whether there was one within ``timeout`` seconds."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            place = threading.Event()
            self._waiting.append(place)
        try:
            given = place.wait(timeout)
        except BaseException:
            if self._was_given(place):
                self.release()
            raise
        return given or self._was_given(place)

    def release(self) -> None:
        """Give a place back, to whoever has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1

    def _was_given(self, place: threading.Event) -> bool:
        with self._lock:
            if not place.is_set():
                self._waiting.remove(place)
            return place.is_set()


class Database:
    """A bounded pool of application connections. Made once in each worker; safe for greenlets and threads."""

    def __init__(self, settings: Settings) -> None:
        extensions.set_wait_callback(_wait)
        self._settings = settings
        self.patience = settings.pool_timeout_seconds - ANSWER_MARGIN_SECONDS
        self.size = settings.pool_size
        self._slots = FairSemaphore(settings.pool_size)
        self._idle: list[Session] = []
        # What it was when this worker was made is good until another one is, also for one that has not connected yet.
        self._password = settings.password()
        self.in_use = 0

    def open(self, deadline: float) -> Session:
        """A new connection outside the pool. Raises DatabaseUnavailable when there is none before ``deadline``."""
        statement, lock = self._settings.statement_timeout_seconds, LOCK_TIMEOUT_SECONDS
        options = f"-c statement_timeout={int(statement * 1000)} -c lock_timeout={int(lock * 1000)}"

        class Waiting(Connection):
            def __init__(self, *arguments: Any, **keywords: Any) -> None:
                self.deadline = deadline
                super().__init__(*arguments, **keywords)

        parameters = _parameters(self._settings, owner=False, options=options)
        try:
            connection = self._connect(Waiting, parameters)
        except (psycopg2.Error, TimeoutError) as error:
            log.warning("database: %s", str(error).strip() or type(error).__name__)
            raise DatabaseUnavailable(*_faults(DatabaseUnavailable)) from error
        connection.patience = self.patience
        connection.autocommit = True
        session = Session(connection)
        session.allow_until(deadline)
        return session

    def _connect(self, factory: type[Connection], parameters: dict[str, Any]) -> Connection:
        """Connect with the password that the file has now or, if that fails, with the last that was good.

        Whoever changes a password writes the file before or after the database knows it. Raises psycopg2.Error,
        TimeoutError.
        """
        last, now = self._password, parameters.get("password")
        connection: Connection
        try:
            connection = psycopg2.connect(connection_factory=factory, **parameters)
            self._password = now
        except psycopg2.OperationalError:
            if last in (None, now):
                raise
            connection = psycopg2.connect(connection_factory=factory, **parameters | {"password": last})
        return connection

    def deadline(self) -> float:
        """When the database must have answered a request that begins now, on the monotonic clock."""
        return monotonic() + self.patience

    @contextmanager
    def session(self, deadline: float | None = None) -> Iterator[Session]:
        """A connection of the pool for the length of the block. Raises DatabaseUnavailable when there is none."""
        deadline = deadline or self.deadline()
        if not self._slots.acquire(max(0.0, deadline - monotonic())):
            raise DatabaseUnavailable(Fault("database", "every connection is busy; try again"))
        session = None
        self.in_use += 1
        try:
            session = self._take(deadline)
            yield session
        finally:
            self.in_use -= 1
            if session is not None:
                if session.broken:
                    session.close()
                    self._close_idle()
                else:
                    self._idle.append(session)
            self._slots.release()

    def _close_idle(self) -> None:
        """What was open beside a connection that broke may be as dead; each would cost somebody a wait to find out."""
        while self._idle:
            self._idle.pop().close()

    def _take(self, deadline: float) -> Session:
        while self._idle:
            session = self._idle.pop()
            if not session.broken and not session.has_gone():
                session.allow_until(deadline)
                return session
            session.close()
        return self.open(deadline)
