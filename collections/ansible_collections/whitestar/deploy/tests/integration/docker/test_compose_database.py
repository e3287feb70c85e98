# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database in a container comes to be what it should, with passwords that work and are shown nowhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient
from ansible_collections.whitestar.deploy.tests.engine_helpers import keep_service
from ansible_collections.whitestar.deploy.tests.helpers import Result, open_directory, run_module

ALL = [
    "make role people_owner",
    "make role people_app",
    "make database people",
    "let only the two roles connect",
]


class Database:
    """PostgreSQL as a service of a project, and a database in it."""

    def __init__(self, place: Path, options: dict[str, Any]) -> None:
        self.place = place
        self.options = options
        self.engine = DockerClient.of(options)
        for role in ("owner", "user", "superuser"):
            (place / role).write_text(f"hunter2-{role}\n")

    def serve(self) -> Result:
        """Have the container, as the role has it."""
        definition = {
            "user": "999:999",
            "command": ["postgres", "--fsync=off"],
            "networks": ["data"],
            "stop_grace_period": "5s",
            "tmpfs": ["/tmp", "/var/run/postgresql:mode=0755,uid=999,gid=999"],
            "volumes": ["database:/var/lib/postgresql/data"],
            "environment": {
                "POSTGRES_PASSWORD_FILE": str(self.place / "superuser"),
                "POSTGRES_INITDB_ARGS": "--auth-host=scram-sha-256 --no-sync",
            },
            "healthcheck": {
                "test": ["CMD", "pg_isready", "--quiet", "--host=127.0.0.1", "--username=postgres"],
                "interval": "10s",
                "start_period": "60s",
                "start_interval": "500ms",
            },
        }
        given = {
            "name": "database",
            "image": "postgres:17",
            "definition": definition,
            "volumes": {"database": {}},
            "secret_files": {"superuser": str(self.place / "superuser")},
        }
        return keep_service(self.place / "state", self.options, given)

    def keep(self, *, check: bool = False, **options: Any) -> Result:
        given = {
            "engine": self.options,
            "database": "people",
            "owner": "people_owner",
            "owner_password_file": str(self.place / "owner"),
            "user": "people_app",
            "user_password_file": str(self.place / "user"),
        }
        return run_module("compose_database", given | options, check=check)

    def psql(self, *words: str, **environment: str) -> str:
        """What ``psql`` in the container says, be it a complaint."""
        (container,) = self.engine.containers("database")
        given = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        done = self.engine.start(["exec", *given, container["Id"], "psql", "-XAtq", *words], "", 30)
        return (done.stdout or done.stderr).strip()

    def sign_in(self, user: str, password: str, sql: str = "SELECT 1", database: str = "people") -> str:
        """What the server says over TCP to a client with a password."""
        return self.psql("-h", "127.0.0.1", "-U", user, "-d", database, "-c", sql, PGPASSWORD=password)

    def administer(self, sql: str) -> str:
        return self.psql("-U", "postgres", "-c", sql)


@pytest.fixture(scope="module")
def kept(engine: dict[str, Any]) -> Iterator[Database]:
    """A database as the first run leaves it, made in the twelve steps' first six."""
    place = open_directory()
    database = Database(place, engine)
    seen = database.keep(check=True)
    assert seen.changed
    assert seen["steps"] == ["make the roles and the database"]
    assert database.keep().message == "no container of database runs. Run the whole site once."
    assert not database.serve().failed
    seen = database.keep(check=True)
    assert seen["steps"] == ALL
    assert database.administer("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'people%'") == "0"
    done = database.keep()
    assert done["steps"] == ALL
    assert done["diff"]["after"].splitlines() == ALL
    yield database
    shutil.rmtree(place)


@pytest.fixture
def database(kept: Database) -> Iterator[Database]:
    yield kept
    kept.keep()


def test_again_there_is_nothing_to_do(database: Database) -> None:
    for check in (True, False):
        again = database.keep(check=check)
        assert not again.changed
        assert again["steps"] == []
    assert not database.serve().changed


def test_both_roles_sign_in_with_their_own_password(database: Database) -> None:
    assert database.sign_in("people_owner", "hunter2-owner") == "1"
    assert database.sign_in("people_app", "hunter2-user") == "1"
    assert "password authentication failed" in database.sign_in("people_app", "hunter2-owner")


def test_a_changed_password_is_set_and_only_then(database: Database) -> None:
    (database.place / "user").write_text("hunter2-another")
    seen = database.keep(check=True)
    assert seen["steps"] == ["set the password of role people_app"]
    assert database.sign_in("people_app", "hunter2-user") == "1"
    done = database.keep()
    assert done["steps"] == seen["steps"]
    assert database.sign_in("people_app", "hunter2-another") == "1"
    assert "password authentication failed" in database.sign_in("people_app", "hunter2-user")
    for check in (True, False):
        assert not database.keep(check=check).changed
    (container,) = database.engine.containers("database")
    shown = database.engine.logs(container["Id"], 1000) + database.engine.run("inspect", container["Id"])
    assert "hunter2" not in seen.output + done.output + shown
    (database.place / "user").write_text("hunter2-user\n")


def test_rows_survive_another_container(database: Database) -> None:
    sign_in = ("people_owner", "hunter2-owner")
    database.sign_in(*sign_in, "CREATE TABLE kept AS SELECT 5 AS five")
    (container,) = database.engine.containers("database")
    database.engine.run("rm", "--force", container["Id"])
    assert database.serve()["steps"] == ["start the service database"]
    assert not database.keep().changed
    assert database.sign_in(*sign_in, "SELECT five FROM kept") == "5"


def test_what_is_missing_is_named(database: Database, place: Path) -> None:
    assert "/nowhere/password" in database.keep(user_password_file="/nowhere/password").message
    assert "no container of cache runs" in database.keep(service="cache").message
    gone = database.options | {"socket": f"{place}/none.sock"}
    assert f"no Docker engine answers at {place}/none.sock" in database.keep(engine=gone).message
