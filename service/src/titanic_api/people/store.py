# ruff: noqa: S608 (what is put into SQL text are the constants of this module; values are parameters)
"""All SQL about people that the running service uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from titanic_api.db import Row, Session, Statement
from titanic_api.errors import Fault, IdempotencyConflict, ListTooLong, PersonNotFound
from titanic_api.people.model import Person

COLUMNS = "survived, passenger_class, name, sex, age, siblings_or_spouses, parents_or_children, fare"
COLUMN_TYPES = ("boolean", "smallint", "text", "text", "float8", "smallint", "smallint", "float8")
ORDER = "position, uuid"
IDEMPOTENCY_HOURS = 24

SNAPSHOT = Statement("snapshot", (), "SELECT pg_current_snapshot()::text")
# One row at least, so that the snapshot is told even when nobody is found.
PEOPLE_BY_UUID = Statement(
    "people_by_uuid",
    ("uuid[]",),
    f"SELECT pg_current_snapshot()::text, uuid, {COLUMNS} FROM (VALUES (1)) AS one LEFT JOIN people ON uuid = ANY ($1)",
)
# Whether there are more than so many people is found without counting those beyond; then nobody is read.
MORE = "(SELECT count(*) > $1 FROM (SELECT FROM people LIMIT $1 + 1) AS _)"
ALL_PEOPLE = Statement(
    "all_people",
    ("int",),
    f"SELECT pg_current_snapshot()::text, {MORE}, p.* FROM (VALUES (1)) AS one "
    f"LEFT JOIN (SELECT uuid, {COLUMNS} FROM people ORDER BY {ORDER} LIMIT CASE WHEN {MORE} THEN 0 END) AS p ON true",
)
INSERT = Statement(
    "insert_person",
    ("uuid", *COLUMN_TYPES),
    f"INSERT INTO people (uuid, {COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
)
INSERT_ALL = Statement(
    "insert_people",
    ("json",),
    f"INSERT INTO people (uuid, {COLUMNS}) SELECT * FROM json_to_recordset($1) AS _ (uuid uuid, survived boolean, "
    '"passengerClass" smallint, name text, sex text, age float8, "siblingsOrSpousesAboard" smallint, '
    '"parentsOrChildrenAboard" smallint, fare float8)',
)
UPDATE = Statement(
    "update_person",
    ("uuid", *COLUMN_TYPES),
    f"UPDATE people SET ({COLUMNS}) = ($2, $3, $4, $5, $6, $7, $8, $9) WHERE uuid = $1 RETURNING uuid",
)
DELETE = Statement("delete_person", ("uuid",), "DELETE FROM people WHERE uuid = $1 RETURNING uuid")
LOCK = Statement("lock_person", ("uuid",), f"SELECT {COLUMNS} FROM people WHERE uuid = $1 FOR UPDATE")
CLAIM_KEY = Statement(
    "claim_key",
    ("text", "bytea", "bytea", "text"),
    "INSERT INTO idempotency_keys (key, request, body, location) VALUES ($1, $2, $3, $4) "
    "ON CONFLICT (key) DO NOTHING RETURNING key",
)
READ_KEY = Statement("read_key", ("text",), "SELECT request, body, location FROM idempotency_keys WHERE key = $1")
FORGET_KEYS = Statement(
    "forget_keys",
    (),
    "DELETE FROM idempotency_keys WHERE key IN (SELECT key FROM idempotency_keys "
    f"WHERE created_at < now() - interval '{IDEMPOTENCY_HOURS} hours' LIMIT 10 FOR UPDATE SKIP LOCKED)",
)
STATEMENTS = (
    SNAPSHOT, PEOPLE_BY_UUID, ALL_PEOPLE, INSERT, INSERT_ALL, UPDATE, DELETE, LOCK, CLAIM_KEY, READ_KEY, FORGET_KEYS,
)  # fmt: skip

# What can be asked for, and the column that answers. A null age comes last in both directions.
SORTS = {
    "name": "name",
    "age": "age",
    "fare": "fare",
    "passengerClass": "passenger_class",
    "survived": "survived",
    "sex": "sex",
}


@dataclass(frozen=True)
class Query:
    """A narrowed list: exact filters, ``q`` as part of the name in any case, one sort key, one page."""

    survived: bool | None = None
    passenger_class: int | None = None
    sex: str | None = None
    q: str | None = None
    sort: str | None = None
    limit: int | None = None
    offset: int = 0


# People with their uuids, to be taken while the session lasts.
Pieces = Iterator[list[tuple[str, Person]]]


class Page(NamedTuple):
    """One page of a narrowed list and the number of people on all pages."""

    total: int
    people: Pieces


class Replay(NamedTuple):
    """The response that an Idempotency-Key had the first time."""

    body: bytes
    location: str


def snapshot(session: Session) -> str:
    """What the session sees now: equal snapshots of one server's life mean equal visible data.

    PostgreSQL decides by a snapshot's (xmin, xmax, transactions in progress) alone whose changes a statement sees, and
    every transaction that changes something takes an id from that sequence:
    https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
    """
    text: str = session.read(SNAPSHOT)[0][0]
    return text


def people_by_uuid(session: Session, uuids: Iterable[str]) -> tuple[str, dict[str, Person]]:
    """The snapshot read under, and those of ``uuids`` that exist."""
    rows = session.read(PEOPLE_BY_UUID, "{" + ",".join(uuids) + "}")
    return rows[0][0], {row[1]: Person(*row[2:]) for row in rows if row[1] is not None}


def all_people(session: Session, most: int) -> tuple[str, Pieces]:
    """The snapshot read under, and everybody in the list's order. Raises ListTooLong for more than ``most``."""
    (snapshot, more), people = _people(session.read_in_pieces(ALL_PEOPLE, most), 2)
    if more:
        raise too_long(most)
    return snapshot, people


def _people(pieces: Iterator[list[Row]], told: int) -> tuple[Row, Pieces]:
    """What the first columns, ``told`` of them, say in every row, and the people in the others, who may be nobody."""
    first = next(pieces)
    people = (
        [(row[told], Person(*row[told + 1 :])) for row in rows]
        for rows in chain([first], pieces)
        if rows[0][told] is not None
    )
    return first[0][:told], people


def search(session: Session, query: Query, most: int) -> Page:
    """One page of a narrowed list, counted and read under the same snapshot.

    Raises ListTooLong for more than ``most`` people where no length of the page is given.
    """
    where, values = _where(query)
    count = f"(SELECT count(*) FROM people{where})"
    page = f"SELECT uuid, {COLUMNS} FROM people{where} ORDER BY {order_by(query.sort)}"
    page_values: list[Any] = [*values]
    if query.limit is not None:
        page += " LIMIT %s"
        page_values.append(query.limit)
    else:
        page += f" LIMIT CASE WHEN {count} > %s THEN 0 END"
        page_values += [*values, query.offset + most]
    page += " OFFSET %s"
    page_values.append(query.offset)
    # The sort is repeated outside, where the join would be free to lose it.
    sql = f"SELECT {count}, p.* FROM (VALUES (1)) AS one LEFT JOIN ({page}) AS p ON true"
    (total,), people = _people(session.read_in_pieces(sql, *values, *page_values), 1)
    if query.limit is None and total - query.offset > most:
        raise too_long(most)
    return Page(total, people)


def _where(query: Query) -> tuple[str, list[Any]]:
    conditions, values = [], []
    for column in ("survived", "passenger_class", "sex"):
        if (value := getattr(query, column)) is not None:
            conditions.append(f"{column} = %s")
            values.append(value)
    if query.q is not None:
        conditions.append("name ILIKE %s")
        escaped = query.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        values.append(f"%{escaped}%")
    return (" WHERE " + " AND ".join(conditions) if conditions else ""), values


def order_by(sort: str | None) -> str:
    """The ORDER BY of a sort key such as ``fare`` or ``-age``; ties and no key keep the list's order."""
    if sort is None:
        return ORDER
    column = SORTS[sort.removeprefix("-")]
    direction = "DESC NULLS LAST" if sort.startswith("-") and column == "age" else "DESC" * sort.startswith("-")
    return f"{column} {direction}, {ORDER}"


def insert(session: Session, uuid: str, person: Person) -> None:
    """Add one person: one statement that commits by itself."""
    session.write(INSERT, uuid, *person)


def insert_all(session: Session, bodies: Iterable[bytes]) -> None:
    """Add people, given as the JSON that is answered for each: all of them or none, in their order."""
    session.write(INSERT_ALL, "[" + b",".join(bodies).decode() + "]")


def claim(session: Session, key: str, request: bytes, first: Replay) -> bool:
    """Whether ``key`` was free, and now stands for this request (a hash of it) and its answer.

    Of two at once the second waits for the first one's commit at the unique index, so nothing may be locked before.
    """
    if not session.write(CLAIM_KEY, key, request, first.body, first.location):
        return False
    session.write(FORGET_KEYS)
    return True


def replay(session: Session, key: str, request: bytes) -> Replay:
    """What ``key`` was answered the first time. Raises IdempotencyConflict for another request under the same key."""
    rows = session.read(READ_KEY, key)
    if not rows or bytes(rows[0][0]) != request:
        raise IdempotencyConflict(Fault("Idempotency-Key", "was used before with another body"))
    return Replay(bytes(rows[0][1]), rows[0][2])


def lock_list(session: Session) -> None:
    """Let others read, and nobody else write, until the transaction ends."""
    session.query("LOCK TABLE people IN SHARE ROW EXCLUSIVE MODE")


def replace(session: Session, uuid: str, person: Person) -> None:
    """Give a person new values. Raises PersonNotFound."""
    if not session.write(UPDATE, uuid, *person):
        raise not_found(uuid)


def delete(session: Session, uuid: str) -> None:
    """Remove a person. Raises PersonNotFound."""
    if not session.write(DELETE, uuid):
        raise not_found(uuid)


def lock(session: Session, uuid: str) -> Person:
    """A person whom nobody else changes until the transaction ends. Raises PersonNotFound."""
    rows = session.read(LOCK, uuid)
    if not rows:
        raise not_found(uuid)
    return Person(*rows[0])


def too_long(most: int) -> ListTooLong:
    """The error about a list of more than ``most`` people."""
    return ListTooLong(Fault("limit", f"is needed, as in ?limit=1000: more than {most} people come in pages only"))


def not_found(uuid: str) -> PersonNotFound:
    """The error about a uuid that nobody has."""
    return PersonNotFound(Fault("uuid", f"nobody has the uuid {uuid[:64]}"))
