# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: S608 (what is put into SQL text are the constants of this module, and quoted names)
"""The database, its two roles and their grants, on any server that runs SQL for its administrator.

Once a password has been rotated the role that serves is a group, and the service signs in as a member of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import read_json
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import grants
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import (
    ADMINISTRATOR,
    Server,
    identifier,
    literal,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.scram import matches, verifier

TEXT, PASSWORD = {"type": "str", "required": True}, {"type": "path", "required": True, "no_log": False}
# Of modules that read passwords from files.
OPTIONS: dict[str, Any] = {
    **dict.fromkeys(("database", "owner", "user"), TEXT),
    **dict.fromkeys(("owner_password_file", "user_password_file"), PASSWORD),
    "answer_file": {"type": "path"},
    "superuser_password_file": {"type": "path", "no_log": False},
    "state_directory": {"type": "path"},
    "finish": {"type": "bool", "default": False},
}
# What both roles may and may not.
ATTRIBUTES = {
    "LOGIN": True,
    "SUPERUSER": False,
    "CREATEDB": False,
    "CREATEROLE": False,
    "REPLICATION": False,
    "BYPASSRLS": False,
}
# How often and until when both may log in.
LIMITS = {"CONNECTION LIMIT": "-1", "VALID UNTIL": "'infinity'"}
# What is there of ours, in one question; a role that may more than it should is not as it should be.
FACTS = f"""
SELECT json_build_object(
    'passwords', (SELECT coalesce(json_object_agg(rolname, coalesce(rolpassword, '')), '{{{{}}}}') FROM pg_authid
                  WHERE rolname IN ({{roles}}) AND rolcanlogin AND NOT
                  (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)
                  AND rolconnlimit = -1 AND coalesce(rolvaliduntil, 'infinity') = 'infinity'),
    'roles', (SELECT coalesce(json_object_agg(rolname, rolcanlogin OR rolpassword IS NOT NULL), '{{{{}}}}')
              FROM pg_authid WHERE rolname IN ({{roles}})),
    'administrator', (SELECT coalesce(rolpassword, '') FROM pg_authid WHERE rolname = {{administrator}}),
    'settings', (SELECT coalesce(json_agg(json_build_array(pg_get_userbyid(setrole), datname)), '[]')
                 FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase
                 WHERE pg_get_userbyid(setrole) IN ({{roles}})),
    'memberships', (SELECT coalesce(json_agg(json_build_array(
                    pg_get_userbyid(member), pg_get_userbyid(roleid), pg_get_userbyid(grantor))), '[]')
                    FROM pg_auth_members WHERE pg_get_userbyid(member) IN ({{roles}})),
    'owner', (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = {{database}}),
    'grants', (SELECT {grants.GRANTS.format(acl="datacl", kind="'d'", owner="datdba")}
               FROM pg_database WHERE datname = {{database}}))
"""
# What everybody may on a new database, by PostgreSQL's own defaults.
NEW = [["PUBLIC", "CONNECT"], ["PUBLIC", "TEMPORARY"]]


def role_steps(
    facts: dict[str, Any], names: dict[str, str], passwords: dict[str, str], retired: Sequence[str] = ()
) -> dict[str, str]:
    """The SQL still needed, by a description of each step, in order. ``names`` has owner, user, database.

    ``passwords`` has those of all roles that may sign in, and the administrator's where that is kept. The ``retired``
    may sign in no longer.
    """
    steps = {**_logins(facts, names, passwords), **_turns(facts, names, passwords, retired)}
    for role, place in facts["settings"]:
        where = f" IN DATABASE {identifier(place)}" if place else ""
        steps[f"reset the settings of role {role}{where}"] = f"ALTER ROLE {identifier(role)}{where} RESET ALL"
    database, owner = identifier(names["database"]), identifier(names["owner"])
    if facts["owner"] is None:
        steps[f"make database {names['database']}"] = f"CREATE DATABASE {database} OWNER {owner}"
    elif facts["owner"] != names["owner"]:
        steps[f"give database {names['database']} to {names['owner']}"] = f"ALTER DATABASE {database} OWNER TO {owner}"
    for member, of, grantor in facts["memberships"]:
        if of != names["user"] or member == names["owner"]:
            steps[f"take {member} out of {of}"] = (
                f"REVOKE {identifier(of)} FROM {identifier(member)} GRANTED BY {identifier(grantor)}"
            )
    found = NEW if facts["grants"] is None else facts["grants"]
    differs = grants.beside(found, names["user"], {names["owner"], facts["owner"]}, ["CONNECT"])
    if needed := grants.statements("DATABASE", names["database"], differs, names["user"]):
        steps["let only the two roles connect"] = "; ".join(needed.values())
    return steps


def _logins(facts: dict[str, Any], names: dict[str, str], passwords: dict[str, str]) -> dict[str, str]:
    """What makes the roles that sign in, and sets their passwords."""
    steps: dict[str, str] = {}
    group = names["user"]
    if group not in passwords and group not in facts["roles"]:
        steps[f"make role {group}"] = f"CREATE ROLE {identifier(group)} NOLOGIN"
    for role, password in passwords.items():
        kept = facts["administrator"] if role == ADMINISTRATOR else facts["passwords"].get(role)
        if kept is None:
            attributes = " ".join(name if wanted else f"NO{name}" for name, wanted in ATTRIBUTES.items())
            attributes += "".join(f" {name} {value}" for name, value in LIMITS.items())
            # A literal, since any dollar quote could be part of a name.
            make = f"BEGIN CREATE ROLE {identifier(role)}; EXCEPTION WHEN duplicate_object THEN NULL; END"
            steps[f"make role {role}"] = (
                f"DO {literal(make)};ALTER ROLE {identifier(role)} {attributes} PASSWORD {literal(verifier(password))}"
            )
        elif not matches(password, kept):
            steps[f"set the password of role {role}"] = (
                f"ALTER ROLE {identifier(role)} PASSWORD {literal(verifier(password))}"
            )
    return steps


def _turns(
    facts: dict[str, Any], names: dict[str, str], passwords: dict[str, str], retired: Sequence[str]
) -> dict[str, str]:
    """What gives the logins that take turns the grants of the role that serves, and ends those that had their turn."""
    steps: dict[str, str] = {}
    group = names["user"]
    inside = {member for member, of, _ in facts["memberships"] if of == group}
    for role in passwords.keys() - inside - {ADMINISTRATOR, names["owner"], group}:
        steps[f"put {role} into {group}"] = f"GRANT {identifier(group)} TO {identifier(role)}"
    for role in retired:
        if facts["roles"].get(role):
            # Its sessions end with it: no release that serves has one.
            ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {literal(role)}"
            steps[f"take the login of role {role} away"] = (
                f"ALTER ROLE {identifier(role)} NOLOGIN PASSWORD NULL; {ended}"
            )
    return steps


def read_passwords(options: Mapping[str, Any], logins: Sequence[str] = ("",)) -> dict[str, str]:
    """The password of each role that may sign in, from the files that a module's options name. Raises OSError.

    ``logins`` is what the names of the service's logins end with, and the names of their files.
    """
    files = {options["owner"]: options["owner_password_file"]}
    files |= {f"{options['user']}{login}": f"{options['user_password_file']}{login}" for login in logins}
    if options.get("superuser_password_file"):
        files[ADMINISTRATOR] = options["superuser_password_file"]
    return {role: Path(path).read_text(encoding="utf-8").rstrip("\n") for role, path in files.items()}


def last_grants(answer_file: str | None) -> dict[str, list[str]] | None:
    """What the migration granted whose answer is in this file; None where none has told. Raises OSError, ValueError."""
    found: dict[str, list[str]] | None = read_json(Path(answer_file), {}).get("grants") if answer_file else None
    return found


def ensure_roles(
    server: Server,
    options: Mapping[str, Any],
    passwords: dict[str, str],
    *,
    retired: Sequence[str] = (),
    granted: Mapping[str, Sequence[str]] | None = None,
    check: bool,
) -> list[str]:
    """Have the database, its roles and grants, or say what is missing. Returns the steps in words.

    ``options`` has owner, user and database, ``passwords`` that of each role that may sign in, ``retired`` the roles
    whose login is to be taken away, of which some may not be there; ``granted`` is what the last migration
    granted the role that serves, by relation, None where no migration has told.
    """
    names = {name: options[name] for name in ("database", "owner", "user")}
    facts: Any = server.query(facts_query(names, {*passwords, *retired}))
    needed = role_steps(facts, names, passwords, retired)
    if needed and not check:
        # psql commits each statement by itself, as CREATE DATABASE demands; a run cut off here goes on from there.
        server.run_sql(";\n".join(needed.values()))
    if granted is None or facts["owner"] is None:
        return list(needed)
    found: Any = server.query(grants.DATABASE, names["database"])
    kept = grants.grant_steps(found, names, granted)
    if kept and not check:
        server.run_sql(";\n".join(kept.values()), names["database"])
    return [*needed, *kept]


def facts_query(names: Mapping[str, str], others: Iterable[str]) -> str:
    """The one question, about the two roles and these others."""
    roles = sorted({names["owner"], names["user"], *others} - {ADMINISTRATOR})
    quoted = {"roles": ", ".join(map(literal, roles)), "administrator": literal(ADMINISTRATOR)}
    return FACTS.format(**quoted, database=literal(names["database"]))


def result(steps: Sequence[str]) -> dict[str, Any]:
    """What a module gives back that has taken these steps."""
    diff = {"before": "", "after": "".join(f"{step}\n" for step in steps)}
    return {"changed": bool(steps), "steps": steps, "diff": diff}
