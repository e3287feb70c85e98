# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs in a database from what was applied is found by role, relation and privilege, on a real PostgreSQL."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.drift import (
    REMEMBERED,
    database_drift,
    untold,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.roles import ensure_roles

PASSWORD = "planted-password-of-a-role"
SCHEMA = """
CREATE TABLE people (position bigint); CREATE SEQUENCE people_position;
CREATE TABLE seeded_people (uuid uuid PRIMARY KEY, values_hash uuid NOT NULL);
CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('0003');
INSERT INTO seeded_people SELECT gen_random_uuid(), gen_random_uuid() FROM generate_series(1, 9);
GRANT USAGE ON SCHEMA public TO {user}; GRANT SELECT, INSERT ON people TO {user};
GRANT USAGE ON SEQUENCE people_position TO {user}; GRANT SELECT ON alembic_version TO {user};
"""
GRANTS = {"people": ["SELECT", "INSERT"], "people_position": ["USAGE"], "alembic_version": ["SELECT"]}


class Database:
    """A database with its two roles and a small schema, as a deployment leaves it."""

    def __init__(self, cluster: PostgresServer) -> None:
        mark = secrets.token_hex(3)
        self.cluster = cluster
        self.names = {"database": f"drift_{mark}", "owner": f"owner_{mark}", "user": f"user_{mark}"}
        self.passwords = dict.fromkeys((self.names["owner"], self.names["user"]), PASSWORD)
        ensure_roles(cluster, self.names, self.passwords, check=False)
        self.sql(f"SET ROLE {self.names['owner']}; {SCHEMA.format(**self.names)}")
        remembered = cluster.query(REMEMBERED, self.names["database"])
        self.answers: dict[str, dict[str, Any]] = {
            "migrate": {"to": "0003", "grants": GRANTS},
            "seed": {"remembered": remembered},
        }

    def keep(self) -> list[str]:
        granted = self.answers["migrate"].get("grants")
        return ensure_roles(self.cluster, self.names, self.passwords, granted=granted, check=False)

    def sql(self, text: str) -> None:
        self.cluster.run_sql(text.format(**self.names), self.names["database"])

    def lines(self) -> list[str]:
        """What differs, with the roles' and the database's part for their names."""
        found = [str(each) for each in database_drift(self.cluster, self.names, self.passwords, self.answers)]
        assert PASSWORD not in "".join(found)
        for part, name in self.names.items():
            found = [line.replace(name, f"<{part}>") for line in found]
        return found


@pytest.fixture
def database(cluster: PostgresServer) -> Iterator[Database]:
    found = Database(cluster)
    yield found
    cluster.run_sql(f"DROP DATABASE IF EXISTS {found.names['database']} WITH (FORCE)")
    for role in ("other_super", found.names["user"], found.names["owner"]):
        cluster.run_sql(f"DROP ROLE IF EXISTS {role}")


def test_what_a_deployment_leaves_is_no_drift(database: Database) -> None:
    assert database.lines() == []
    assert database.keep() == []
    assert database.lines() == []


PLANTED = {
    "may be superuser": ("ALTER ROLE {user} SUPERUSER", ["role <user>: SUPERUSER: false was applied, is true"]),
    "may make databases": ("ALTER ROLE {owner} CREATEDB", ["role <owner>: CREATEDB: false was applied, is true"]),
    "passes row security": ("ALTER ROLE {user} BYPASSRLS", ["role <user>: BYPASSRLS: false was applied, is true"]),
    "may not log in": ("ALTER ROLE {user} NOLOGIN", ["role <user>: LOGIN: true was applied, is false"]),
    "is another's member": ("GRANT {owner} TO {user}", ['role <user>: member of: [] was applied, is ["<owner>"]']),
    "logs in once": (
        "ALTER ROLE {user} CONNECTION LIMIT 1",
        ['role <user>: CONNECTION LIMIT: "-1" was applied, is "1"'],
    ),
    "logs in no more": (
        "ALTER ROLE {user} VALID UNTIL '2020-01-01 00:00:00+00'",
        ["role <user>: VALID UNTIL: \"'infinity'\" was applied, is \"'2020-01-01 00:00:00+00'\""],
    ),
    "does not write": (
        "ALTER ROLE {user} IN DATABASE {database} SET default_transaction_read_only = on",
        ['role <user>: settings: [] was applied, is ["default_transaction_read_only=on"]'],
    ),
    "another password": (
        "ALTER ROLE {user} PASSWORD 'another'",
        ["role <user>: password: is another than the recorded one"],
    ),
    "another superuser": (
        "CREATE ROLE other_super SUPERUSER",
        ["role other_super: SUPERUSER: is a superuser beside the administrator"],
    ),
    "another's database": (
        "ALTER DATABASE {database} OWNER TO postgres",
        ['database <database>: owner: "<owner>" was applied, is "postgres"'],
    ),
    "everybody connects": (
        "GRANT CONNECT ON DATABASE {database} TO PUBLIC",
        ['database <database>: grants[PUBLIC]: added: "CONNECT"'],
    ),
    "nobody connects": (
        "REVOKE CONNECT ON DATABASE {database} FROM {user}",
        ['database <database>: grants[<user>]: removed, was "CONNECT"'],
    ),
    "makes tables": (
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        ['database <database> schema public: grants[PUBLIC]: added: "CREATE"'],
    ),
    "writes more": (
        "GRANT DELETE, UPDATE ON people TO {user}",
        [
            'database <database> relation people: grants[<user>]: added: "DELETE"',
            'database <database> relation people: grants[<user>]: added: "UPDATE"',
        ],
    ),
    "empties": (
        "GRANT TRUNCATE ON people TO {user}",
        ['database <database> relation people: grants[<user>]: added: "TRUNCATE"'],
    ),
    "writes a column": (
        "GRANT UPDATE (position) ON people TO {user}",
        ['database <database> relation people: grants[<user>]: added: "UPDATE (\\"position\\")"'],
    ),
    "makes schemas": (
        "GRANT CREATE ON DATABASE {database} TO {user}",
        ['database <database>: grants[<user>]: added: "CREATE"'],
    ),
    "another role reads": (
        "CREATE ROLE other_super; GRANT SELECT ON people TO other_super",
        ['database <database> relation people: grants[other_super]: added: "SELECT"'],
    ),
    "passes on": (
        "GRANT SELECT ON people TO {user} WITH GRANT OPTION",
        [
            'database <database> relation people: grants[<user>]: added: "SELECT WITH GRANT OPTION"',
            'database <database> relation people: grants[<user>]: removed, was "SELECT"',
        ],
    ),
    "reads less": (
        "REVOKE SELECT ON people FROM {user}",
        ['database <database> relation people: grants[<user>]: removed, was "SELECT"'],
    ),
    "everybody reads": (
        "GRANT SELECT ON seeded_people TO PUBLIC",
        ['database <database> relation seeded_people: grants[PUBLIC]: added: "SELECT"'],
    ),
    "counts no further": (
        "REVOKE USAGE ON SEQUENCE people_position FROM {user}",
        ['database <database> relation people_position: grants[<user>]: removed, was "USAGE"'],
    ),
    "owns a table": (
        "ALTER TABLE people OWNER TO {user}",
        [
            'database <database> relation people: owner: "<owner>" was applied, is "<user>"',
            *(
                f'database <database> relation people: grants[<user>]: added: "{privilege}"'
                for privilege in ("DELETE", "MAINTAIN", "REFERENCES", "TRIGGER", "TRUNCATE", "UPDATE")
            ),
        ],
    ),
    "a migration's table is another's": (
        "ALTER TABLE people OWNER TO postgres",
        ['database <database> relation people: owner: "<owner>" was applied, is "postgres"'],
    ),
    "empties later tables": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT TRUNCATE ON TABLES TO {user}",
        ['database <database> later TABLES FOR ROLE "<owner>" IN SCHEMA "public": grants[<user>]: added: "TRUNCATE"'],
    ),
    "everybody reads later tables": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT ON TABLES TO PUBLIC",
        ['database <database> later TABLES FOR ROLE "<owner>": grants[PUBLIC]: added: "SELECT"'],
    ),
    "another's table": (
        "CREATE TABLE extra (); GRANT SELECT ON extra TO {user}",
        [
            'database <database> relation extra: owner: "<owner>" was applied, is "postgres"',
            'database <database> relation extra: grants[<user>]: added: "SELECT"',
        ],
    ),
    "a table is gone": ("DROP TABLE people", ["database <database> relation people: is gone"]),
    "another revision": (
        "UPDATE alembic_version SET version_num = '0002'",
        ['database <database>: schema.revision: "0003" was applied, is "0002"'],
    ),
}


# What the next run leaves: what others own or were given, and what is lost.
STAYS = {
    "another superuser": 1,
    "another role reads": 1,
    "another's table": 1,
    "a table is gone": 1,
    "another revision": 1,
}


@pytest.mark.parametrize("case", PLANTED)
def test_what_is_planted_is_found_and_taken_back(database: Database, case: str) -> None:
    statements, expected = PLANTED[case]
    for statement in statements.split("; "):
        database.sql(statement)
    assert database.lines() == expected
    left = expected[: STAYS.get(case, 0)]
    assert bool(database.keep()) == (left != expected)
    assert database.lines() == left
    assert database.keep() == []


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO seeded_people VALUES (gen_random_uuid(), gen_random_uuid())",
        "DELETE FROM seeded_people WHERE uuid = (SELECT min(uuid::text)::uuid FROM seeded_people)",
        "UPDATE seeded_people SET values_hash = gen_random_uuid()",
    ],
)
def test_another_seed_is_found(database: Database, statement: str) -> None:
    database.sql(statement)
    (line,) = database.lines()
    assert line.startswith("database <database>: seed.remembered: ")


def test_what_users_do_is_no_drift(database: Database) -> None:
    database.sql("INSERT INTO people VALUES (1), (2)")
    assert database.lines() == []


def test_the_next_run_mends_roles(database: Database) -> None:
    for attribute in ("SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS", "NOLOGIN"):
        database.sql(f"ALTER ROLE {database.names['user']} {attribute}")
    assert len(database.lines()) == 6
    assert database.keep() == [f"make role {database.names['user']}"]
    assert database.lines() == []


def test_what_no_release_tells_is_not_compared(database: Database) -> None:
    database.answers = {"migrate": {}, "seed": {"sha256": "ab"}}
    database.sql("GRANT DELETE ON people TO {user}")
    database.sql("UPDATE alembic_version SET version_num = '0001'; DELETE FROM seeded_people")
    assert database.lines() == []
    assert [line.partition(":")[0] for line in untold(database.answers)] == [
        "the schema's revision",
        "the grants on tables",
        "what was seeded",
    ]


def test_a_database_that_is_gone_is_found(database: Database) -> None:
    database.cluster.run_sql(f"DROP DATABASE {database.names['database']}; DROP ROLE {database.names['user']}")
    assert database.lines() == ["role <user>: is gone", "database <database>: is gone"]
