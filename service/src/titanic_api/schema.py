# ruff: noqa: S608 (what is put into SQL text are the constants of this module, and quoted names)
"""The schema of the database: the revision that this release needs, the one there is, and the way between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from titanic_api import db

if TYPE_CHECKING:
    from psycopg2 import extensions

    from titanic_api.config import Settings

MIGRATIONS = Path(str(files("titanic_api"))) / "migrations"
MIGRATION_LOCK = 0x7117A21C  # the advisory lock of everybody who migrates
LOCK_WAIT_SECONDS = 60
# What the application may do; names are the migrations' own.
GRANTS = {
    "people": "SELECT, INSERT, UPDATE, DELETE",
    "idempotency_keys": "SELECT, INSERT, UPDATE, DELETE",
    "alembic_version": "SELECT",
    "schema_contract": "SELECT",
}

POSITION = {"people_position": "USAGE"}


class Revision(NamedTuple):
    """A migration of this package: its id, and the oldest application revision that can live on its schema."""

    id: str
    oldest_tolerated: str


def _revisions() -> tuple[Revision, ...]:
    # Read as text, because importing a migration would import Alembic and SQLAlchemy: half a second.
    found = []
    for path in sorted((MIGRATIONS / "versions").glob("[0-9]*.py")):
        text = path.read_text(encoding="utf-8")
        values = dict(re.findall(r'^(revision|oldest_tolerated): str = "(\d{4})"$', text, re.MULTILINE))
        found.append(Revision(values["revision"], values["oldest_tolerated"]))
    return tuple(found)


REVISIONS = _revisions()
REQUIRED = REVISIONS[-1].id
OLDEST_TOLERATED = REVISIONS[-1].oldest_tolerated


@dataclass(frozen=True)
class State:
    """What a database has: its revision (None: no schema), and the oldest application revision that it tolerates."""

    current: str | None
    oldest_tolerated: str | None


STATE = "SELECT version_num, oldest_tolerated FROM alembic_version, schema_contract"


def problem(state: State) -> str | None:
    """Why this release cannot serve a database in this state, or None."""
    if state.current is None:
        return f"the database has no schema, and this release needs {REQUIRED}. Run titanic-api migrate."
    if state.current < REQUIRED:
        return f"the database is at {state.current} and this release needs {REQUIRED}. Run titanic-api migrate."
    if state.oldest_tolerated is not None and state.oldest_tolerated > REQUIRED:
        return f"the database is at {state.current} and tolerates no release older than {state.oldest_tolerated}"
    return None


def read_state(session: db.Session) -> State:
    """The state of the database behind a session of the pool. Raises DatabaseUnavailable."""
    if not session.query("SELECT to_regclass('public.schema_contract')")[0][0]:
        return State(None, None)
    rows = session.query(STATE)
    return State(*rows[0]) if rows else State(None, None)


def state_of(connection: extensions.connection) -> State:
    """The state of the database behind a plain connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.schema_contract')")
        if cursor.fetchall()[0][0] is None:
            return State(None, None)
        cursor.execute(STATE)
        rows = cursor.fetchall()
    return State(*rows[0]) if rows else State(None, None)


def inspect(settings: Settings) -> tuple[State, int | None]:
    """What the application role finds: the state, and the number of people if there is a schema. Raises db.Error."""
    connection = db.connect(settings, statement_timeout=settings.statement_timeout_seconds)
    try:
        state = state_of(connection)
        if state.current is None:
            return state, None
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM people")
            return state, int(cursor.fetchall()[0][0])
    finally:
        connection.close()


class Refused(Exception):  # noqa: N818 (an outcome, not a defect)
    """A command cannot do what was asked; the message is one line for people."""


def migrate(settings: Settings, *, check: bool = False) -> dict[str, Any]:
    """Bring the database to this release's revision; with ``check`` only say what that would do.

    A database that is ahead is left as it is. Raises Refused, or psycopg2.Error.
    """
    connection = db.connect(settings, owner=True)
    try:
        before = state_of(connection)
        pending = [revision.id for revision in REVISIONS if before.current is None or revision.id > before.current]
        if not pending and _granted(connection, settings):
            return _report(before, before, pending=[], changed=False)
        _require_role(connection, settings)
        if check:
            return _report(before, _expected(before), pending, changed=True)
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_WAIT_SECONDS}s",))
            cursor.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        # Somebody else may have migrated while we waited for the lock.
        before = state_of(connection)
        pending = [revision.id for revision in REVISIONS if before.current is None or revision.id > before.current]
        changed = bool(pending) or not _granted(connection, settings)
        if pending:
            _upgrade(settings)
        _grant(connection, settings)
        return _report(before, state_of(connection), pending, changed)
    finally:
        connection.close()


def _expected(before: State) -> State:
    ahead = before.current is not None and before.current > REQUIRED
    return before if ahead else State(REQUIRED, OLDEST_TOLERATED)


def _report(before: State, after: State, pending: list[str], changed: bool) -> dict[str, Any]:
    return {
        "from": before.current,
        "to": after.current,
        "changed": changed,
        "pending": pending,
        "oldest_tolerated": after.oldest_tolerated,
        "grants": {name: privileges.split(", ") for name, privileges in (GRANTS | POSITION).items()},
    }


def _upgrade(settings: Settings) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    def connect() -> extensions.connection:
        connection = db.connect(settings, owner=True)
        connection.autocommit = False  # Alembic runs each migration in a transaction
        return connection

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    engine = create_engine("postgresql+psycopg2://", creator=connect, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        raise Refused(f"a migration failed and was undone: {error.orig}") from error


def _require_role(connection: extensions.connection, settings: Settings) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (settings.database_user,))
        if not cursor.fetchall():
            raise Refused(f"the role {settings.database_user} (TITANIC_DATABASE_USER) does not exist; create it first")


def _granted(connection: extensions.connection, settings: Settings) -> bool:
    checks = " AND ".join(
        f"has_table_privilege(rolname, 'public.{table}', '{privilege}')"
        for table, privileges in GRANTS.items()
        for privilege in privileges.split(", ")
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT has_schema_privilege(rolname, 'public', 'USAGE') "
            f"AND has_sequence_privilege(rolname, 'public.people_position', 'USAGE') AND {checks} "
            "FROM pg_roles WHERE rolname = %s",
            (settings.database_user,),
        )
        rows = cursor.fetchall()
    return bool(rows) and rows[0][0] is True


def _grant(connection: extensions.connection, settings: Settings) -> None:
    role = db.quoted_name(connection, settings.database_user)
    grants = [f"GRANT USAGE ON SCHEMA public TO {role}", f"GRANT USAGE ON SEQUENCE people_position TO {role}"]
    grants += [f"GRANT {privileges} ON {table} TO {role}" for table, privileges in GRANTS.items()]
    with connection.cursor() as cursor:
        cursor.execute("BEGIN; " + "; ".join(grants) + "; COMMIT")
