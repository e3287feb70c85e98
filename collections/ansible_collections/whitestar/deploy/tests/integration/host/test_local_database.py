# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster, its database and its roles come to be what they should, with passwords that work and are shown nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.tests.helpers import ACCOUNT, Result, open_directory, run_module

QUICK = {"fsync": "off"}


class Database:
    """A database in a cluster that the module keeps."""

    def __init__(self, place: Path, bindir: Path) -> None:
        self.place = place
        self.cluster = PostgresServer(place / "database", bindir, unprivileged(ACCOUNT))
        for role in ("owner", "user"):
            (place / role).write_text(f"hunter2-{role}\n")

    def keep(self, *, check: bool = False, **options: Any) -> Result:
        given = {
            "directory": str(self.cluster.directory),
            "bindir": str(self.cluster.bindir),
            "account": ACCOUNT,
            "database": "people",
            "owner": "people_owner",
            "owner_password_file": str(self.place / "owner"),
            "user": "people_app",
            "user_password_file": str(self.place / "user"),
            "settings": QUICK,
        }
        return run_module("local_database", given | options, check=check)

    def sign_in(self, user: str, password: str, sql: str = "SELECT 1", database: str = "people") -> str:
        """What the server says to a client with a password; its complaint if it refuses."""
        place = str(self.cluster.socket_directory)
        command = [str(self.cluster.bindir / "psql"), "-XAtq", "-h", place, "-U", user, "-d", database, "-c", sql]
        environment = {"PGPASSWORD": password, "PATH": os.environ["PATH"]}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
        return (done.stdout or done.stderr).strip()


@pytest.fixture(scope="module")
def kept(bindir: Path) -> Iterator[Database]:
    """A database as the first run leaves it; tests that share it put back what they change."""
    place = open_directory()
    database = Database(place, bindir)
    try:
        assert database.keep().changed
        yield database
    finally:
        database.cluster.stop()
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def database(kept: Database) -> Iterator[Database]:
    yield kept
    kept.keep()


def test_from_nothing_and_again(place: Path, bindir: Path) -> None:
    database = Database(place, bindir)
    try:
        seen = database.keep(check=True)
        assert seen["steps"] == ["make the cluster", "start PostgreSQL", "make the roles and the database"]
        assert not database.cluster.directory.exists()
        done = database.keep()
        assert done.changed
        assert done["steps"][0] == "make the cluster"
        assert "make database people" in done["steps"]
        assert done["socket_directory"] == str(database.cluster.socket_directory)
        for check in (True, False):
            assert database.keep(check=check)["steps"] == []
        database.cluster.stop()
        assert database.keep(check=True)["steps"] == ["start PostgreSQL"]
        assert not database.cluster.running()
        assert database.keep()["steps"] == ["start PostgreSQL"]
        assert database.sign_in("people_app", "hunter2-user") == "1"
    finally:
        database.cluster.stop()


def test_both_roles_sign_in_with_their_own_password(database: Database) -> None:
    assert database.sign_in("people_owner", "hunter2-owner") == "1"
    assert database.sign_in("people_app", "hunter2-user") == "1"
    assert "password authentication failed" in database.sign_in("people_app", "hunter2-owner")


def test_the_owner_owns_and_the_service_does_not(database: Database) -> None:
    facts = "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication FROM pg_roles WHERE rolname = current_user"
    for role, password in (("people_owner", "hunter2-owner"), ("people_app", "hunter2-user")):
        assert database.sign_in(role, password, facts) == "f|f|f|f"
    assert "permission denied" in database.sign_in("people_app", "hunter2-user", "CREATE TABLE t (a int)")
    assert database.sign_in("people_owner", "hunter2-owner", "CREATE TABLE t (a int); DROP TABLE t") == ""


def test_a_third_role_may_not_connect(database: Database) -> None:
    database.cluster.run_sql("CREATE ROLE stranger LOGIN PASSWORD 'x'")
    said = database.sign_in("stranger", "x")
    database.cluster.run_sql("DROP ROLE stranger")
    assert 'permission denied for database "people"' in said


def test_a_changed_password_is_set_and_only_then(database: Database) -> None:
    (database.place / "user").write_text("another")
    seen = database.keep(check=True)
    assert seen["steps"] == ["set the password of role people_app"]
    assert database.sign_in("people_app", "hunter2-user") == "1"
    assert database.keep()["steps"] == seen["steps"]
    assert database.sign_in("people_app", "another") == "1"
    assert not database.keep().changed
    (database.place / "user").write_text("hunter2-user\n")


def test_what_somebody_changed_is_put_back(database: Database) -> None:
    database.cluster.run_sql(
        "ALTER DATABASE people OWNER TO postgres; GRANT CONNECT ON DATABASE people TO PUBLIC;"
        "ALTER ROLE people_app NOLOGIN"
    )
    seen = database.keep(check=True)["steps"]
    assert seen == ["make role people_app", "give database people to people_owner", "let only the two roles connect"]
    assert database.keep()["steps"] == seen
    assert database.keep()["steps"] == []
    assert database.sign_in("people_app", "hunter2-user") == "1"


def test_settings_that_need_a_restart_get_one(database: Database) -> None:
    changed: dict[str, Any] = {"settings": QUICK | {"max_connections": 60}}
    assert database.keep(check=True, **changed)["steps"] == ["write titanic.conf"]
    assert database.keep(**changed)["steps"] == ["write titanic.conf", "restart PostgreSQL for max_connections"]
    assert database.cluster.run_sql("SHOW max_connections") == "60"
    assert not database.keep(**changed).changed


def test_settings_that_need_none_get_none(database: Database) -> None:
    started = "SELECT pg_postmaster_start_time()"
    before = database.cluster.run_sql(started)
    assert database.keep(settings=QUICK | {"work_mem": "5MB"})["steps"] == ["write titanic.conf"]
    assert database.cluster.run_sql(started) == before
    assert database.cluster.run_sql("SELECT pg_sleep(0.2); SHOW work_mem").endswith("5MB")


def test_odd_names_are_names(database: Database) -> None:
    odd = """we"ird o'clock a$$b $x$ ; -- {brace} :colon"""
    options: dict[str, Any] = {"database": odd, "owner": f"{odd} owner", "user": f"{odd} user"}
    assert database.keep(**options).changed
    assert not database.keep(**options).changed
    assert database.sign_in(f"{odd} user", "hunter2-user", database=odd) == "1"


def test_no_password_is_shown_or_logged(database: Database) -> None:
    (database.place / "user").write_text("hunter2-changed")
    outputs = [database.keep(check=True).output, database.keep().output]
    logs = [path.read_text() for path in database.cluster.directory.glob("log/*")]
    assert logs
    assert "hunter2" not in "".join([*outputs, *logs])
    (database.place / "user").write_text("hunter2-user\n")


def test_a_missing_password_file_is_named(database: Database) -> None:
    assert "/nowhere/password" in database.keep(user_password_file="/nowhere/password").message


def test_missing_programs_are_named(place: Path) -> None:
    failed = Database(place, place / "nowhere").keep()
    assert f"titanic_database_local_bindir: {place}/nowhere has no working 'postgres'" in failed.message


def test_programs_that_are_not_installed_yet_are_fine_in_check_mode(place: Path) -> None:
    seen = Database(place, place / "nowhere").keep(check=True)
    assert seen.changed
    assert not (place / "database").exists()
