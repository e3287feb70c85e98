# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: S608 (what is put into SQL text are the constants of this module)
"""What differs in a database from what was applied: roles, ownership, grants, the schema's revision, the seed.

PostgreSQL knows neither who changed such a thing nor when.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import Difference
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import grants
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import Server, literal
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.roles import ATTRIBUTES, LIMITS
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.scram import matches

# The administrator that initdb made is role 10.
SERVER = f"""
SELECT json_build_object(
    'roles', (SELECT coalesce(json_object_agg(rolname, json_build_object(
        'LOGIN', rolcanlogin, 'SUPERUSER', rolsuper, 'CREATEDB', rolcreatedb, 'CREATEROLE', rolcreaterole,
        'REPLICATION', rolreplication, 'BYPASSRLS', rolbypassrls,
        'password', coalesce(rolpassword, ''),
        'CONNECTION LIMIT', rolconnlimit::text,
        'VALID UNTIL', quote_literal(coalesce(rolvaliduntil, 'infinity')),
        'settings', (SELECT coalesce(json_agg(unnest ORDER BY unnest), '[]')
                     FROM pg_db_role_setting, unnest(setconfig) WHERE setrole = r.oid),
        'member of', (SELECT coalesce(json_agg(pg_get_userbyid(roleid) ORDER BY roleid), '[]')
                      FROM pg_auth_members WHERE member = r.oid)
    )), '{{{{}}}}') FROM pg_authid r WHERE rolname IN ({{roles}})),
    'superusers', (SELECT coalesce(json_agg(rolname ORDER BY rolname), '[]') FROM pg_authid
                   WHERE rolsuper AND oid <> 10 AND rolname NOT IN ({{roles}})),
    'database', (SELECT json_build_object('owner', pg_get_userbyid(datdba), 'grants',
                     {grants.GRANTS.format(acl="datacl", kind="'d'", owner="datdba")})
                 FROM pg_database WHERE datname = {{database}}))
"""
REVISION = "SELECT to_json(max(version_num)) FROM alembic_version"
# As the service's own seed reports it: service/src/titanic_api/seed.py.
REMEMBERED = """
SELECT to_json(count(*) || '-' ||
    coalesce(sum(('x' || left(md5(uuid::text || values_hash::text), 15))::bit(60)::bigint), 0))
FROM seeded_people
"""


def database_drift(
    server: Server,
    names: Mapping[str, str],
    passwords: Mapping[str, str],
    answers: Mapping[str, Mapping[str, Any]],
    logins: Sequence[str] = (),
    retired: Sequence[str] = (),
) -> Iterator[Difference]:
    """What differs. ``names`` has database, owner and user, ``passwords`` that of each role that is known.

    ``logins`` are the roles by which the service signs in, where that is not the user itself, ``retired`` those that
    were. ``answers`` are those of the last ``migrate`` and ``seed``; what a release does not tell in them is not
    compared.
    """
    what = f"database {names['database']}"
    named = dict.fromkeys((names["owner"], names["user"], *logins, *retired))
    quoted = {"roles": ", ".join(map(literal, named)), "database": literal(names["database"])}
    facts: Any = server.query(SERVER.format(**quoted))
    for role in (name for name in named if name not in retired or name in facts["roles"]):
        other: dict[str, Any] = {"LOGIN": role not in retired}
        if role == names["user"] and role not in (*retired, *(logins or [role])):
            # While a rotation is half done it may be either.
            other["LOGIN"] = facts["roles"].get(role, {}).get("LOGIN")
        elif role in {*logins} - {names["user"]}:
            other["member of"] = [names["user"]]
        elif role in retired and role != names["user"]:
            other["member of"] = facts["roles"][role]["member of"]
        yield from _role(f"role {role}", facts["roles"].get(role), passwords.get(role), other)
    for name in facts["superusers"]:
        yield Difference(f"role {name}", "SUPERUSER", said="is a superuser beside the administrator")
    if facts["database"] is None:
        yield Difference(what, said="is gone")
        return
    database = facts["database"]
    owners = {names["owner"], database["owner"]}
    yield from _owned(what, database, names, grants.beside(database["grants"], names["user"], owners, ["CONNECT"]))
    yield from _tables(server, what, names, answers)


def untold(answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What cannot be compared, because no release has told it."""
    migrated, seeded = answers.get("migrate", {}), answers.get("seed", {})
    return [
        *([] if migrated else ["the schema's revision: no migration is recorded"]),
        *([] if "grants" in migrated else ["the grants on tables: the last migration does not tell them"]),
        *([] if "remembered" in seeded else ["what was seeded: the last seed does not tell it"]),
    ]


def _role(
    what: str, found: Mapping[str, Any] | None, password: str | None, other: Mapping[str, Any]
) -> Iterator[Difference]:
    if found is None:
        yield Difference(what, said="is gone")
        return
    lists: dict[str, Any] = {"settings": [], "member of": []}
    for name, wanted in {**ATTRIBUTES, **LIMITS, **lists, **other}.items():
        if found[name] != wanted:
            yield Difference(what, name, wanted, found[name])
    if password is not None and not matches(password, found["password"]):
        yield Difference(what, "password", said="is another than the recorded one")


def _owned(
    what: str, found: Mapping[str, Any], names: Mapping[str, str], differs: grants.Beside
) -> Iterator[Difference]:
    """Whether the right role owns something, and its grants."""
    if found["owner"] != names["owner"]:
        yield Difference(what, "owner", names["owner"], found["owner"])
    yield from _grants(what, differs, names["user"])


def _grants(what: str, differs: grants.Beside, user: str) -> Iterator[Difference]:
    for grantee, privilege in differs.added:
        yield Difference(what, f"grants[{grantee}]", live=privilege)
    for privilege in differs.lacking:
        yield Difference(what, f"grants[{user}]", applied=privilege)


def _tables(
    server: Server, what: str, names: Mapping[str, str], answers: Mapping[str, Mapping[str, Any]]
) -> Iterator[Difference]:
    found: Any = server.query(grants.DATABASE, names["database"])
    told = answers.get("migrate", {})
    granted = told.get("grants")
    if told:
        yield from _grants(f"{what} schema public", grants.in_schema(found, names), names["user"])
        for where, objects, grantee, privilege in grants.in_defaults(found, names):
            yield Difference(f"{what} later {objects} {where}", f"grants[{grantee}]", live=privilege)
    for name, relation in sorted(found["relations"].items()):
        wanted = None if granted is None else granted.get(name, [])
        yield from _owned(f"{what} relation {name}", relation, names, grants.in_relation(relation, names, wanted))
    for name in sorted(set(granted or ()) - set(found["relations"])):
        yield Difference(f"{what} relation {name}", said="is gone")
    for path, table, sql, value in (
        ("schema.revision", "alembic_version", REVISION, told.get("to")),
        ("seed.remembered", "seeded_people", REMEMBERED, answers.get("seed", {}).get("remembered")),
    ):
        live = server.query(sql, names["database"]) if table in found["relations"] else None
        if value is not None and live != value:
            yield Difference(what, path, value, live)
