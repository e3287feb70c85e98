# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database, its two roles and their grants, on any server that runs SQL for its administrator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import identifier, literal
from ansible_collections.whitestar.deploy.plugins.module_utils.scram import matches, verifier

# What both roles may and may not.
ATTRIBUTES = {
    "LOGIN": True,
    "SUPERUSER": False,
    "CREATEDB": False,
    "CREATEROLE": False,
    "REPLICATION": False,
    "BYPASSRLS": False,
}
# What is there of ours, in one question; a role that may more than it should is not as it should be.
FACTS = """
SELECT json_build_object(
    'passwords', (SELECT coalesce(json_object_agg(rolname, coalesce(rolpassword, '')), '{{}}') FROM pg_authid
                  WHERE rolname IN ({owner}, {user}) AND rolcanlogin AND NOT
                  (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)),
    'owner', (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = {database}),
    'public', (SELECT has_database_privilege('public', oid, 'CONNECT') FROM pg_database WHERE datname = {database}),
    'connect', (SELECT has_database_privilege(r.oid, d.oid, 'CONNECT') FROM pg_database d, pg_roles r
                WHERE datname = {database} AND rolname = {user}))
"""


class Server(Protocol):
    """A server that can be asked and told things as its administrator."""

    def ask(self, sql: str, database: str = "postgres") -> object:
        """The JSON value that the one statement ``sql`` returns."""

    def run_sql(self, sql: str, database: str = "postgres") -> str:
        """Run ``sql``, which must reach it by standard input."""


def role_steps(facts: dict[str, Any], names: dict[str, str], passwords: dict[str, str]) -> dict[str, str]:
    """The SQL still needed, by a description of each step, in order. ``names`` has owner, user, database."""
    steps: dict[str, str] = {}
    for role, password in passwords.items():
        kept = facts["passwords"].get(role)
        if kept is None:
            attributes = " ".join(name if wanted else f"NO{name}" for name, wanted in ATTRIBUTES.items())
            # A literal, since any dollar quote could be part of a name.
            make = f"BEGIN CREATE ROLE {identifier(role)}; EXCEPTION WHEN duplicate_object THEN NULL; END"
            steps[f"make role {role}"] = (
                f"DO {literal(make)};ALTER ROLE {identifier(role)} {attributes} PASSWORD {literal(verifier(password))}"
            )
        elif not matches(password, kept):
            steps[f"set the password of role {role}"] = (
                f"ALTER ROLE {identifier(role)} PASSWORD {literal(verifier(password))}"
            )
    database, owner = identifier(names["database"]), identifier(names["owner"])
    if facts["owner"] is None:
        steps[f"make database {names['database']}"] = f"CREATE DATABASE {database} OWNER {owner}"
    elif facts["owner"] != names["owner"]:
        steps[f"give database {names['database']} to {names['owner']}"] = f"ALTER DATABASE {database} OWNER TO {owner}"
    if facts["public"] is not False or not facts["connect"]:
        user = identifier(names["user"])
        steps["let only the two roles connect"] = (
            f"REVOKE ALL ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO {user}"
        )
    return steps


def read_passwords(options: Mapping[str, Any]) -> dict[str, str]:
    """The password of each role, from the files that a module's options name. Raises OSError."""
    return {
        options[role]: Path(options[f"{role}_password_file"]).read_text(encoding="utf-8").rstrip("\n")
        for role in ("owner", "user")
    }


def keep_roles(server: Server, options: Mapping[str, Any], passwords: dict[str, str], *, check: bool) -> list[str]:
    """Have the database, its roles and grants, or say what is missing. Returns the steps in words.

    ``options`` has owner, user and database, ``passwords`` that of each role.
    """
    names = {name: options[name] for name in ("database", "owner", "user")}
    facts = server.ask(FACTS.format(**{key: literal(value) for key, value in names.items()}))
    needed = role_steps(facts if isinstance(facts, dict) else {}, names, passwords)
    if needed and not check:
        # psql commits each statement by itself, as CREATE DATABASE demands; a run cut off here goes on from there.
        server.run_sql(";\n".join(needed.values()))
    return list(needed)
