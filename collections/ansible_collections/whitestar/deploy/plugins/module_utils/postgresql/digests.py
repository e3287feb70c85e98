# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: S608 (what is put into SQL text are the constants of this module, and quoted names)
"""What is in the tables of a database, so that two databases can be compared: rows counted, and all of them hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import literal

TABLES = """
SELECT coalesce(json_agg(format('%I.%I', nspname, relname) ORDER BY nspname, relname), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND relpersistence = 'p' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
"""
# What the rows of all tables must keep to, beside them under a name that no table has.
CONSTRAINTS = "constraints"
KEPT_TO = """
SELECT conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace::regnamespace::text !~ '^(pg_|information_schema$)' ORDER BY conrelid::regclass::text, conname
"""
COUNTS = "SELECT json_build_object({pairs})"
MARK = "== "
# So that what is locked for a moment is not waited for by those who write.
LOCK_MILLISECONDS = 200
# Whatever a session is set to, a value is written in the same way.
PLAIN = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1;"
PLAIN += " SET bytea_output = 'hex'; SET work_mem = '32MB';"


def counts_sql(tables: Sequence[str]) -> str:
    """One statement that counts the rows of these tables (as :data:`TABLES` names them)."""
    return COUNTS.format(pairs=", ".join(f"{literal(table)}, (SELECT count(*) FROM {table})" for table in tables))


def digest_script(tables: Sequence[str], point: str = "") -> str:
    """A script for psql that prints each table's rows in order, and the constraints, as of one moment.

    ``point`` names that moment in the WAL.

    All tables are locked against writers just until the moment is fixed: no commit can come between what is seen and
    the restore point. After the savepoint is given up nobody is held up any more.
    """
    lines = [PLAIN, f"SET lock_timeout = {LOCK_MILLISECONDS};", "BEGIN ISOLATION LEVEL REPEATABLE READ;"]
    if point and tables:
        lines += ["SAVEPOINT moment;", f"LOCK TABLE {', '.join(tables)} IN SHARE MODE;"]
        lines += [f"\\echo {_echoed('point')}", f"SELECT pg_create_restore_point({literal(point)});"]
        lines += ["ROLLBACK TO SAVEPOINT moment;"]
    for table in tables:
        lines += [f"\\echo {_echoed(table)}"]
        lines += [f'COPY (SELECT __row::text FROM {table} __row ORDER BY __row::text COLLATE "C") TO STDOUT;']
    lines += [f"\\echo {_echoed(CONSTRAINTS)}", f"COPY ({' '.join(KEPT_TO.split())}) TO STDOUT;"]
    return "\n".join([*lines, "COMMIT;", ""])


def read_digests(lines: Iterable[bytes]) -> dict[str, str]:
    """What the script printed: ``COUNT SHA256`` by table and of the constraints, and the LSN as ``point``."""
    found: dict[str, str] = {}
    name, count, digest = "", 0, hashlib.sha256()
    mark = MARK.encode()
    for line in lines:
        if line.startswith(mark):
            if name and name != "point":
                found[name] = f"{count} {digest.hexdigest()}"
            name, count, digest = line[len(mark) :].decode().rstrip("\n"), 0, hashlib.sha256()
        elif name == "point":
            found["point"] = found.get("point") or line.decode().strip()
        else:
            count += 1
            digest.update(line)
    if name and name != "point":
        found[name] = f"{count} {digest.hexdigest()}"
    return found


def differing(live: Mapping[str, str], restored: Mapping[str, str]) -> list[str]:
    """One line for each table, or all constraints, that are not the same in both."""
    return [
        f"{table}: {_rows(live.get(table))} in the live database, {_rows(restored.get(table))} in the restored one"
        for table in sorted(set(live) | set(restored))
        if table != "point" and live.get(table) != restored.get(table)
    ]


def _rows(told: str | None) -> str:
    count, _, digest = (told or "").partition(" ")
    return f"{count} rows with SHA-256 {digest[:12]}" if told else "no such table"


def _echoed(name: str) -> str:
    """A line that announces what follows, as an argument of psql's echo."""
    return literal(MARK + name).replace("\\", "\\\\")
