# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A password is rotated on a real PostgreSQL: both logins are good until the release has moved, however it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import Rotation
from ansible_collections.whitestar.deploy.tests.helpers import ACCOUNT, Result, make_image, make_workload, run_module

GENERATED = ["database_owner_password", "database_app_password"]
IMAGE = "aaaaaaaaaaaa"
REFUSED = ("password authentication failed", "is not permitted to log in")


class Site:
    """A small site: secrets, a database with its roles, a release that reads the password."""

    def __init__(self, state: State, bindir: Path) -> None:
        self.state = state
        self.secrets = state.root / "secrets"
        self.cluster = PostgresServer(state.database, bindir, unprivileged(ACCOUNT))
        self.workload = make_workload(state, IMAGE, TITANIC_DATABASE_USER="people_app")
        self.workload["secret_files"] = {"database_password": str(self.secrets / "database_app_password")}

    def keep_secrets(self, *rotate: str, check: bool = False, **options: Any) -> Result:
        given: dict[str, Any] = {
            "directory": str(self.secrets),
            "state_directory": str(self.state.root),
            "by": "alice@laptop",
        }
        given |= {"generated": GENERATED, "rotate": list(rotate)}
        return run_module("host_secrets", given | options, check=check)

    def keep_database(self, *, check: bool = False, **options: Any) -> Result:
        given = {
            "directory": str(self.cluster.directory),
            "bindir": str(self.cluster.bindir),
            "account": ACCOUNT,
            "database": "people",
            "owner": "people_owner",
            "owner_password_file": str(self.secrets / "database_owner_password"),
            "user": "people_app",
            "user_password_file": str(self.secrets / "database_app_password"),
            "settings": {"fsync": "off"},
            "state_directory": str(self.state.root),
        }
        return run_module("local_database", given | options, check=check)

    def deploy(self, *, check: bool = False, **options: Any) -> Result:
        make_image(self.state, IMAGE)
        given = {"state_directory": str(self.state.root), "by": "alice@laptop", "why": "rotate", "ready_seconds": 60}
        what = options or {"workload": self.workload}
        return run_module("host_release", given | {"drain_seconds": 5} | what, check=check)

    def finish(self, *, check: bool = False) -> list[Result]:
        options = {"generated": [], "finish": True}
        return [self.keep_database(finish=True, check=check), self.keep_secrets(check=check, **options)]

    def steps(self, *kinds: str) -> list[Any]:
        """What a run does, in order; a site does the same without kinds."""
        deploys: dict[str, Any] = {"restore": 1} if kinds else {}
        return [
            lambda: self.keep_secrets(*kinds),
            self.keep_database,
            lambda: self.deploy(**deploys),
            lambda: self.keep_database(finish=True),
            lambda: self.keep_secrets(generated=[], finish=True),
        ]

    def run(self, *kinds: str) -> list[Result]:
        done = [step() for step in self.steps(*kinds)]
        assert not [result.message for result in done if result.failed]
        return done

    def sign_in(self, user: str, password: str) -> str:
        """What the server says to a client with a password; its complaint if it refuses."""
        words = ["-XAtq", "-h", str(self.cluster.socket_directory), "-U", user, "-d", "people", "-c", "SELECT 1"]
        environment = {"PGPASSWORD": password, "PATH": os.environ["PATH"]}
        command = [str(self.cluster.bindir / "psql"), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
        return (done.stdout or done.stderr).strip()

    def login(self) -> tuple[str, str]:
        """How the release that serves signs in, by the variables of its process."""
        process = next(found for name in ("blue", "green") if (found := self.state.daemon(name).process()))
        pairs = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
        user = next(pair.partition("=")[2] for pair in pairs if pair.startswith("TITANIC_DATABASE_USER="))
        file = self.secrets / f"database_app_password{user.removeprefix('people_app')}"
        return user, file.read_text()


@pytest.fixture
def site(state: State, bindir: Path) -> Iterator[Site]:
    found = Site(state, bindir)
    try:
        found.run()
        yield found
    finally:
        found.cluster.stop()
        shutil.rmtree(found.state.database, ignore_errors=True)


def test_logins_take_turns_from_the_single_role_on(site: Site) -> None:
    user, first = site.login()
    assert (user, site.sign_in(user, first)) == ("people_app", "1")
    old = [site.login()]
    for wanted in ("people_app_a", "people_app_b", "people_app_a"):
        done = site.run("database")
        user, password = site.login()
        assert (user, site.sign_in(user, password)) == (wanted, "1")
        for name, before in old:
            assert name == user or any(words in site.sign_in(name, before) for words in REFUSED)
            assert password != before
        assert sorted(path.name for path in site.secrets.glob("database_app*")) == [
            f"database_app_password{user.removeprefix('people_app')}"
        ]
        assert not any(before in result.output for result in done for _, before in [*old, ("", password)])
        assert [result.changed for result in site.run()] == [False] * 5, "nothing is left for the next run"
        old.append((user, password))
    entries = [(entry.why, entry.outcome, entry.restores) for entry in site.state.ledger().entries[1:]]
    assert entries == [("rotate", "succeeded", 1)] * 3
    # A release of before has the login of now.
    assert site.state.workload(site.workload["release"])["environment"]["TITANIC_DATABASE_USER"] == "people_app_a"
    assert site.state.recorded(site.workload["release"])["environment"]["TITANIC_DATABASE_USER"] == "people_app"


@pytest.mark.parametrize("resumed", [(), ("database",)], ids=["by a site", "by a rotation"])
def test_cut_off_after_each_step_the_next_run_ends_it(site: Site, resumed: tuple[str, ...]) -> None:
    before = site.login()
    for number in range(1, 5):
        for step in site.steps("database")[:number]:
            assert not step().failed
        rotation = site.state.rotation()
        assert list(rotation.unfinished) == ["database"]
        if number < 4:
            assert site.sign_in(*before) == "1", "the release that served may serve still"
        if number > 2:
            assert site.login()[0] == f"people_app{rotation.wanted}"
        site.run(*resumed)
        user, password = site.login()
        assert user == f"people_app{rotation.wanted}", "it went on with what was begun"
        assert site.sign_in(user, password) == "1"
        assert any(words in site.sign_in(*before) for words in REFUSED)
        assert site.state.rotation() == Rotation(rotation.wanted, rotation.wanted, {})
        before = (user, password)


def test_sessions_of_the_login_that_had_its_turn_end(site: Site) -> None:
    user, password = site.login()
    command = [str(site.cluster.bindir / "psql"), "-XAtq", "-h", str(site.cluster.socket_directory), "-U", user]
    left = subprocess.Popen(
        [*command, "-d", "people", "-c", "SELECT pg_sleep(60)"],
        env={"PGPASSWORD": password, "PATH": os.environ["PATH"]},
        cwd="/",
        stderr=subprocess.PIPE,
        text=True,
    )
    with left:
        while not site.cluster.run_sql("SELECT 1 FROM pg_stat_activity WHERE usename = 'people_app'"):
            pass
        site.run("database")
        _, said = left.communicate(timeout=10)
    assert "terminating connection" in said


def test_a_given_password_goes_to_the_login_whose_turn_it_is(site: Site) -> None:
    given = {"database_app_password": "planted-given-password"}
    assert not site.keep_secrets(given=given).failed
    assert not site.keep_database().failed
    refused = site.keep_secrets("database", given=given)
    problem = "titanic_secrets_values: database_app_password is the one in use."
    assert refused.message == f"{problem} Give a new one, or none to have one generated."
    assert site.state.rotation() == Rotation()
    given = {"database_app_password": "planted-newer-password"}
    assert site.keep_secrets("database", given=given, check=True)["written"] == ["database_app_password_a"]
    assert site.state.rotation() == Rotation()
    assert not site.keep_secrets("database", given=given).failed
    assert list(site.state.rotation().unfinished) == ["database"]
    assert (site.secrets / "database_app_password_a").read_text() == "planted-newer-password"
    assert (site.secrets / "database_app_password").read_text() == "planted-given-password"
    assert not site.keep_secrets("database", given=given).changed


def test_owner_and_tokens_are_rotated_and_told_of_until_it_is_finished(site: Site) -> None:
    owner = (site.secrets / "database_owner_password").read_text()
    assert not site.keep_secrets(given={"write_tokens": "planted-old"}).failed
    assert site.keep_secrets("tokens", given={"write_tokens": "planted-old"}).message.startswith("titanic_api_write_")
    assert (site.secrets / "database_owner_password").read_text() == owner
    done = site.keep_secrets("superuser", "tokens", given={"write_tokens": "planted-new"}, overlap_seconds=60)
    assert list(site.state.rotation().unfinished) == ["superuser", "tokens"]
    assert "planted" not in done.output
    lines = (site.secrets / "write_tokens").read_text().splitlines()
    assert lines[0] == "planted-new"
    assert lines[1].startswith("planted-old until 20")
    assert site.sign_in("people_owner", owner) == "1"
    assert site.keep_database()["steps"] == ["set the password of role people_owner"]
    assert "password authentication failed" in site.sign_in("people_owner", owner)
    assert "half done: superuser since" in str(site.state.rotation())
    seen, told = (site.finish(check=check)[1] for check in (True, False))
    assert seen["steps"] == told["steps"] == ["finish the rotation of superuser", "finish the rotation of tokens"]
    assert site.state.rotation() == Rotation()
    assert not site.keep_secrets(given={"write_tokens": "planted-new"}).changed, "what ends by itself is left alone"
    site.keep_secrets(given={"write_tokens": "planted-third"})
    assert (site.secrets / "write_tokens").read_text() == "planted-third", "without a rotation it ends at once"


def test_certificates_are_told_of_where_they_are_new(site: Site) -> None:
    def write(pem: dict[str, str]) -> None:
        assert not run_module("host_secrets", {"directory": str(site.secrets / "tls"), "given": pem}).failed

    pem = {"certificate": "planted-1", "key": "planted-key"}
    write(pem)
    refused = site.keep_secrets("tls", "superuser", certificates={"tls": pem, "database_tls": {}})
    assert refused.message == "titanic_secrets_tls: these certificates are the ones in use. Give the new ones."
    assert site.keep_secrets("tls").message == refused.message, "none is no new one"
    assert site.state.rotation() == Rotation(), "nothing of it was begun"
    new = pem | {"certificate": "planted-2"}
    for _ in range(2):
        assert not site.keep_secrets("tls", certificates={"tls": new}).failed, "one that was cut off goes on"
        assert list(site.state.rotation().unfinished) == ["tls"]
        write(new)
    assert "planted" not in site.keep_secrets("tls", certificates={"tls": pem}).output
    assert run_module("host_secrets", {"directory": str(site.secrets), "finish": True}).failed
