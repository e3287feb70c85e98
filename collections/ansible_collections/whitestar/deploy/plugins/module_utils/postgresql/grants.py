# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: S608 (what is put into SQL text are the constants of this module)
"""The privileges in a database: what there is beside what was applied, and the SQL that takes it back."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import identifier

# Grants as lists of grantee and privilege.
GRANTEE = "CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END"
OPTION = " WITH GRANT OPTION"
PRIVILEGE = f"privilege_type || CASE WHEN is_grantable THEN '{OPTION}' ELSE '' END"
GRANTS = f"""(SELECT coalesce(json_agg(json_build_array({GRANTEE}, {PRIVILEGE}) ORDER BY grantee, privilege_type), '[]')
    FROM aclexplode(coalesce({{acl}}, acldefault({{kind}}, {{owner}}))))"""
RELATION = """CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r'::"char" END"""
# Those on single columns are told as SQL has them: UPDATE (name).
COLUMNS = f"""(SELECT coalesce(json_agg(json_build_array({GRANTEE},
        regexp_replace({PRIVILEGE}, '^[A-Z]+', '\\& (' || replace(quote_ident(attname), '\\', '\\\\') || ')'))
        ORDER BY grantee, attnum, privilege_type), '[]')
    FROM pg_attribute, aclexplode(attacl) WHERE attrelid = c.oid)"""
DATABASE = f"""
SELECT json_build_object(
    'schema', (SELECT {GRANTS.format(acl="nspacl", kind="'n'", owner="nspowner")}
               FROM pg_namespace WHERE nspname = 'public'),
    'relations', (SELECT coalesce(json_object_agg(relname, json_build_object(
        'owner', pg_get_userbyid(relowner),
        'kind', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
        'grants', {GRANTS.format(acl="relacl", kind=RELATION, owner="relowner")},
        'columns', {COLUMNS}
    )), '{{}}') FROM pg_class c
    WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p', 'S', 'v', 'm')),
    'defaults', (SELECT coalesce(json_agg(json_build_array(
        pg_get_userbyid(defaclrole), nspname, defaclobjtype, {GRANTEE}, {PRIVILEGE})), '[]')
        FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace, aclexplode(defaclacl)))
"""
# What default privileges are for, and those of them that everybody has by PostgreSQL's own.
OBJECTS = {"r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "T": "TYPES", "n": "SCHEMAS"}
OPEN = ("f", "T")
# Whoever may use a schema by PostgreSQL's own defaults.
DEFAULTS = {("PUBLIC", "USAGE")}
SCHEMA_OWNER = "pg_database_owner"


class Beside(NamedTuple):
    """What differs: (grantee, privilege) that was added, and what the role that serves lacks."""

    added: list[tuple[str, str]]
    lacking: list[str]


def beside(found: Sequence[Sequence[str]], user: str, owners: set[str], wanted: Sequence[str] | None) -> Beside:
    """Beside those of ``owners``, only ``wanted`` for the role that serves; None if that is not known."""
    given = {(grantee, privilege) for grantee, privilege in found if grantee not in owners - {user}}
    if wanted is None:
        given = {(grantee, privilege) for grantee, privilege in given if grantee != user}
    added = sorted(given - {(user, privilege) for privilege in wanted or []})
    return Beside(added, [privilege for privilege in wanted or [] if (user, privilege) not in given])


def in_schema(found: Mapping[str, Any], names: Mapping[str, str]) -> Beside:
    """What differs in the grants on the schema, as :data:`DATABASE` tells them."""
    grants = [pair for pair in found["schema"] or [] if tuple(pair) not in DEFAULTS]
    return beside(grants, names["user"], {names["owner"], SCHEMA_OWNER}, ["USAGE"])


def in_relation(relation: Mapping[str, Any], names: Mapping[str, str], wanted: Sequence[str] | None) -> Beside:
    """What differs in the grants on a relation and its columns, as :data:`DATABASE` tells them."""
    found = relation["grants"] + relation["columns"]
    return beside(found, names["user"], {names["owner"], relation["owner"]}, wanted)


def in_defaults(found: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """What the role that serves or everybody would get on objects that our two roles make later.

    Each as (``FOR ROLE … IN SCHEMA …``, kind of objects, grantee, privilege).
    """
    return [
        (f"FOR ROLE {identifier(role)}{f' IN SCHEMA {identifier(schema)}' if schema else ''}", OBJECTS[kind], who, what)
        for role, schema, kind, who, what in found["defaults"]
        if role in (names["owner"], names["user"])
        and (who == names["user"] != role or (who == "PUBLIC" and kind not in OPEN))
    ]


def misplaced(name: str, relation: Mapping[str, Any], names: Mapping[str, str], granted: Container[str]) -> bool:
    """Whether a table belongs to the role that serves, or is a migration's and does not belong to the owner."""
    ours = relation["owner"] == names["user"] or name in granted
    return relation["kind"] == "TABLE" and ours and relation["owner"] != names["owner"]


def grant_steps(
    found: Mapping[str, Any], names: Mapping[str, str], granted: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The SQL that gives the role that serves what it lacks and takes back what it or everybody was given besides.

    ``found`` is what :data:`DATABASE` tells, ``granted`` what the last migration granted, by relation. What another
    role was given is its owner's business. By a description of each step.
    """
    steps = statements("SCHEMA", "public", in_schema(found, names), names["user"])
    for name, relation in sorted(found["relations"].items()):
        wanted = granted.get(name, [])
        if not misplaced(name, relation, names, granted):
            steps |= statements(relation["kind"], name, in_relation(relation, names, wanted), names["user"])
            continue
        # What its old owner was given becomes the new one's. No request is to find the table without its grants.
        left = {key: [pair for pair in relation[key] if pair[0] != relation["owner"]] for key in ("grants", "columns")}
        given = statements("TABLE", name, in_relation({**relation, **left}, names, wanted), names["user"])
        moved = f"ALTER TABLE public.{identifier(name)} OWNER TO {identifier(names['owner'])}"
        steps[f"give {name} to {names['owner']}"] = "; ".join(["BEGIN", moved, *given.values(), "COMMIT"])
    for where, objects, grantee, privilege in in_defaults(found, names):
        role = grantee if grantee == "PUBLIC" else identifier(grantee)
        steps[f"take {privilege} on later {objects} from {grantee} ({where})"] = (
            f"ALTER DEFAULT PRIVILEGES {where} REVOKE {privilege.removesuffix(OPTION)} ON {objects} FROM {role}"
        )
    return steps


def statements(kind: str, name: str, differs: Beside, user: str) -> dict[str, str]:
    """The SQL, by a description of each step, that puts right what differs on a DATABASE, SCHEMA, TABLE or SEQUENCE."""
    place = f"{kind} {'public.' if kind in ('TABLE', 'SEQUENCE') else ''}{identifier(name)}"
    steps: dict[str, str] = {}
    for grantee, privilege in differs.added:
        if grantee in (user, "PUBLIC"):
            plain = privilege.removesuffix(OPTION)
            # The privilege itself stays where it is wanted: no request is to find it missing for a moment.
            only = "GRANT OPTION FOR " if plain != privilege and plain in differs.lacking else ""
            role = grantee if grantee == "PUBLIC" else identifier(grantee)
            steps[f"take {privilege} on {name} from {grantee}"] = f"REVOKE {only}{plain} ON {place} FROM {role} CASCADE"
    kept = {privilege.removesuffix(OPTION) for grantee, privilege in differs.added if grantee == user}
    for privilege in differs.lacking:
        if privilege not in kept:
            steps[f"give {privilege} on {name} to {user}"] = f"GRANT {privilege} ON {place} TO {identifier(user)}"
    return steps
