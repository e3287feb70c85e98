# ruff: noqa: S608 (what is put into SQL text are the constants of this module)
"""Loads a CSV of passengers: streamed into a staging table and merged in one transaction, as often as you like.

The uuid of a passenger is derived from the name alone, so the same passenger has it with and without an age, today and
tomorrow. What was seeded is remembered (``seeded_people``), which tells the users' own changes and deletions apart from
what the CSV said before: those are left alone unless ``reset`` is asked for.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import lru_cache
from hashlib import sha1, sha256
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

from titanic_api import db, schema
from titanic_api.people.model import MAX_AGE, MAX_FARE, MAX_RELATIVES, NAME_LENGTH, SEXES, require_visible
from titanic_api.schema import Refused

if TYPE_CHECKING:
    from psycopg2.extensions import cursor

    from titanic_api.config import Settings

PACKAGED = "the packaged data set"  # as errors name it
SEED_LOCK = 0x7117A21D  # the advisory lock of everybody who seeds
NAMESPACE = UUID("5b0c9d0e-6b0a-5c57-9d6c-1912041514ab").bytes
LINE_BYTES = 65536
PIECE_BYTES = 1 << 18
PIECE_ROWS = 1000

NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,20})?")
DIGITS = re.compile(r"[0-9]{1,6}")


def _integer(least: int, most: int) -> Callable[[str], str]:
    allowed = {str(number) for number in range(least, most + 1)}

    def parse(text: str) -> str:
        if text in allowed:
            return text
        if DIGITS.fullmatch(text) and least <= int(text) <= most:
            return str(int(text))
        raise ValueError(f"must be an integer from {least} to {most}")

    return parse


def _real(most: int) -> Callable[[str], str]:
    @lru_cache(maxsize=4096)
    def parse(text: str) -> str:
        if NUMBER.fullmatch(text) and float(text) <= most:
            return repr(float(text))
        raise ValueError(f"must be a number from 0 to {most}")

    return parse


_years = _real(MAX_AGE)


def _age(text: str) -> str:
    return _years(text) if text else r"\N"


def _name(text: str) -> str:
    if not 1 <= len(text) <= NAME_LENGTH:
        raise ValueError(f"must be 1 to {NAME_LENGTH} characters")
    require_visible(text)
    return text


def _sex(text: str) -> str:
    if text not in SEXES:
        raise ValueError("must be one of " + ", ".join(SEXES))
    return text


# The header's names, in the order of the columns that they go to.
COLUMNS: dict[str, Callable[[str], str]] = {
    "Survived": _integer(0, 1),
    "Pclass": _integer(1, 3),
    "Name": _name,
    "Sex": _sex,
    "Age": _age,
    "Siblings/Spouses Aboard": _integer(0, MAX_RELATIVES),
    "Parents/Children Aboard": _integer(0, MAX_RELATIVES),
    "Fare": _real(MAX_FARE),
}
NAME = list(COLUMNS).index("Name")


def passenger_uuid(name: str) -> str:
    """The uuid (version 5, RFC 9562) of the passenger with this name; ``uuid.uuid5`` at half the price."""
    digest = sha1(NAMESPACE + name.encode("utf-8"), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


class Passengers:
    """A CSV as the lines that COPY reads, made when asked for; ``rows`` and ``sha256`` are true at the end."""

    def __init__(self, stream: IO[bytes], label: str) -> None:
        self._lines = self._decoded(stream)
        self._label = label
        self._line = 0
        self._hash = sha256()
        self.rows = 0

    @property
    def sha256(self) -> str:
        """The hash of the canonical rows: the same for LF and CRLF, 22 and 22.0, any order of the columns."""
        return self._hash.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        """COPY's text format in pieces: position, uuid, then the columns. Raises Refused with line and column."""
        reader = csv.reader(self._lines, strict=True)
        try:
            header = next(reader, None)
            order = self._order(header)
            rows = self._checked(reader, order)
            while piece := list(islice(rows, PIECE_ROWS)):
                self._hash.update("".join(f"{row}\n" for _, _, row in piece).encode("utf-8"))
                yield "".join(f"{position}\t{uuid}\t{row}\n" for position, uuid, row in piece).encode("utf-8")
        except csv.Error as error:
            said = "holds a CR that ends no line" if "new-line character" in str(error) else str(error)
            raise self._refused(said, max(1, self._line)) from None
        if self.rows == 0:
            raise self._refused("holds no passenger")

    def _checked(self, reader: Any, order: list[int]) -> Iterator[tuple[int, str, str]]:
        lines_by_name: dict[str, int] = {}
        plan = list(zip(COLUMNS.values(), order, strict=True))
        width = len(plan)
        blank = 0
        for fields in reader:
            line = reader.line_num
            if not fields:
                blank = blank or line
                continue
            if blank:  # at the end they are nobody's, as spreadsheets write them
                raise self._refused("is blank", blank)
            if len(fields) != width:
                raise self._refused(f"has {len(fields)} columns and not {width}", line)
            try:
                values = [parse(fields[index]) for parse, index in plan]
            except ValueError:
                raise self._bad_value(fields, order, line) from None
            name = values[NAME]
            first = lines_by_name.setdefault(name, line)
            if first != line:
                column = order[NAME] + 1
                raise self._refused(f"column {column} (Name): {name!r} is on line {first} already", line)
            self.rows += 1
            if "\\" in name:
                values[NAME] = name.replace("\\", "\\\\")
            yield self.rows, passenger_uuid(name), "\t".join(values)

    def _bad_value(self, fields: list[str], order: list[int], line: int) -> Refused:
        for (column, parse), index in zip(COLUMNS.items(), order, strict=True):
            try:
                parse(fields[index])
            except ValueError as error:
                shown = fields[index] if len(fields[index]) <= 60 else fields[index][:60] + "…"
                return self._refused(f"column {index + 1} ({column}): {error}, not {shown!r}", line)
        raise AssertionError("a value was refused and then accepted")

    def _order(self, header: list[str] | None) -> list[int]:
        if header is None:
            raise self._refused("is empty")
        for index, column in enumerate(header):
            if column not in COLUMNS:
                raise self._refused(f"column {index + 1}: {column!r} is not a column of passengers", 1)
            if header.index(column) < index:
                raise self._refused(f"column {index + 1}: {column!r} is there twice", 1)
        for column in COLUMNS:
            if column not in header:
                raise self._refused(f"column {column!r} is missing", 1)
        return [header.index(column) for column in COLUMNS]

    def _decoded(self, stream: IO[bytes]) -> Iterator[str]:
        while raw := stream.readline(LINE_BYTES):
            self._line += 1
            if self._line == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")  # which spreadsheets begin a file with
                if b"\r" in raw.rstrip(b"\r\n"):
                    raise self._refused("ends in CR alone; save the file with LF or CRLF", 1)
            if len(raw) == LINE_BYTES and not raw.endswith(b"\n"):
                raise self._refused(f"is longer than {LINE_BYTES} bytes", self._line)
            if b"\x00" in raw:
                raise self._refused(f"byte {raw.index(0) + 1}: holds a NUL", self._line)
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise self._refused(f"byte {error.start + 1}: is not UTF-8", self._line) from None

    def _refused(self, reason: str, line: int | None = None) -> Refused:
        where = self._label if line is None else f"{self._label}: line {line}"
        return Refused(f"{where}: {reason}")


class _Pieces(io.RawIOBase):
    """The pieces as the file object that psycopg2 reads."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""
        self.refusal: Refused | None = None

    def read(self, size: int = -1) -> bytes:
        while not self._left:
            try:
                self._left = next(self._pieces, b"")
            except Refused as error:
                self.refusal = error
                raise
            if not self._left:
                return b""
        if 0 < size < len(self._left):
            result, self._left = self._left[:size], self._left[size:]
        else:
            result, self._left = self._left, b""
        return result


VALUES = "survived, passenger_class, name, sex, age, siblings_or_spouses, parents_or_children, fare"


def _hash_of(alias: str) -> str:
    return f"md5(ROW({', '.join(alias + '.' + column for column in VALUES.split(', '))})::text)::uuid"


STAGE = f"""
CREATE TEMPORARY TABLE staged ON COMMIT DROP AS
    SELECT position, uuid, {VALUES} FROM people WITH NO DATA
"""
# People whom the CSV brings for the first time; with reset, those too whom users deleted.
INSERT = f"""
INSERT INTO people (position, uuid, {VALUES})
SELECT s.position, s.uuid, {", ".join("s." + column for column in VALUES.split(", "))} FROM staged s
WHERE NOT EXISTS (SELECT FROM people p WHERE p.uuid = s.uuid)
  AND (%(reset)s OR NOT EXISTS (SELECT FROM seeded_people l WHERE l.uuid = s.uuid))
"""
# People whom nobody changed since they were seeded, and of whom the CSV says something else now; with reset, all such.
UPDATE = f"""
UPDATE people p SET ({VALUES}) = ({", ".join("s." + column for column in VALUES.split(", "))})
FROM staged s LEFT JOIN seeded_people l ON l.uuid = s.uuid
WHERE p.uuid = s.uuid AND {_hash_of("p")} <> {_hash_of("s")} AND (%(reset)s OR {_hash_of("p")} = l.values_hash)
"""
UNTOUCHED = "SELECT NOT EXISTS (SELECT FROM people) AND NOT EXISTS (SELECT FROM seeded_people)"
# People of users have positions of their own, above.
REMEMBER_ALL = f"""
INSERT INTO seeded_people (uuid, values_hash)
SELECT p.uuid, {_hash_of("p")} FROM people p WHERE p.position <= 1000000000 ORDER BY p.uuid
"""
REMEMBER = f"""
INSERT INTO seeded_people (uuid, values_hash)
SELECT s.uuid, {_hash_of("s")} FROM staged s ORDER BY s.uuid
ON CONFLICT (uuid) DO UPDATE SET values_hash = excluded.values_hash
WHERE seeded_people.values_hash <> excluded.values_hash
"""
# What tells of everybody ever seeded whether it is the same as before, in any order and without sorting or keeping it.
REMEMBERED = """
SELECT count(*) || '-' || coalesce(sum(('x' || left(md5(uuid::text || values_hash::text), 15))::bit(60)::bigint), 0)
FROM seeded_people
"""


def packaged_sha256() -> str:
    """What ``seed`` reports as ``sha256`` of the packaged data set, found without a database."""
    with closing(_open(None)) as stream:
        passengers = Passengers(stream, PACKAGED)
        for _ in passengers.pieces():
            pass
    return passengers.sha256


def seed(settings: Settings, source: str | None, *, reset: bool = False, check: bool = False) -> dict[str, Any]:
    """Merge a CSV (a path, ``-`` for standard input, None for the packaged data set) into the people.

    With ``check`` the same is done and rolled back. ``total`` counts the CSV's rows. Raises Refused, psycopg2.Error.
    """
    with closing(_open(source)) as stream, closing(db.connect(settings, owner=True)) as connection:
        connection.autocommit = False
        state = schema.state_of(connection)
        problem = schema.problem(state)
        if problem is not None:
            raise Refused(problem)
        passengers = Passengers(stream, source or PACKAGED)
        with connection.cursor() as cursor:
            inserted, updated, remembered = _merge(cursor, passengers, reset)
            cursor.execute(REMEMBERED)
            ledger = str(cursor.fetchall()[0][0])
        if check or not inserted + updated + remembered:
            connection.rollback()
        else:
            connection.commit()
    return {
        "inserted": inserted,
        "updated": updated,
        "unchanged": passengers.rows - inserted - updated,
        "total": passengers.rows,
        "sha256": passengers.sha256,
        "remembered": ledger,
        "changed": inserted + updated > 0,
    }


def _copy(cursor: cursor, statement: str, passengers: Passengers) -> None:
    """Stream the passengers. Raises Refused itself, where psycopg2 makes a database error of what its source raised."""
    pieces = _Pieces(passengers.pieces())
    try:
        cursor.copy_expert(statement, pieces, PIECE_BYTES)
    except db.Error:
        if pieces.refusal is not None:
            raise pieces.refusal from None
        raise


def _merge(cursor: cursor, passengers: Passengers, reset: bool) -> tuple[int, int, int]:
    """How many people were inserted and updated, and how many entries of the ledger changed."""
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (SEED_LOCK,))
    cursor.execute(UNTOUCHED)
    if cursor.fetchall() == [(True,)]:
        # Nothing to merge with, so the staging table would only cost time.
        _copy(cursor, f"COPY people (position, uuid, {VALUES}) FROM STDIN", passengers)
        cursor.execute(REMEMBER_ALL)
        return passengers.rows, 0, passengers.rows
    cursor.execute(STAGE)
    _copy(cursor, "COPY staged FROM STDIN", passengers)
    cursor.execute("ANALYZE staged")
    cursor.execute(UPDATE, {"reset": reset})
    updated = cursor.rowcount
    cursor.execute(INSERT, {"reset": reset})
    inserted = cursor.rowcount
    cursor.execute(REMEMBER)
    return inserted, updated, cursor.rowcount


def _open(source: str | None) -> IO[bytes]:
    if source is None:
        return files("titanic_api").joinpath("data/titanic.csv").open("rb")
    if source == "-":
        return sys.stdin.buffer
    try:
        path = Path(source)
        if path.is_dir():
            raise Refused(f"{source}: is a directory")
        return path.open("rb")
    except OSError as error:
        raise Refused(f"{source}: {error.strerror}") from None


__all__ = ["Passengers", "Refused", "packaged_sha256", "passenger_uuid", "seed"]
