# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins take turns, tokens overlap, and what is begun is told of until it ends."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.host.rotation import record_reached, rotation_of
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.roles import role_steps
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.scram import verifier
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import (
    Rotation,
    kinds_of,
    nothing_new,
    tokens_text,
    with_login,
)

WORKLOAD: dict[str, Any] = {
    "release": "r-1",
    "environment": {
        "TITANIC_DATABASE_USER": "people_app",
        "TITANIC_DATABASE_PASSWORD_FILE": "/s/app",
        "TITANIC_WORKERS": "2",
    },
    "secret_files": {"database_password": "/s/app", "write_tokens": "/s/tokens"},
}


def test_logins_take_turns_and_the_one_before_ends_last() -> None:
    seen = []
    found = Rotation()
    for _ in range(3):
        begun = found.begun(["database"], "alice")
        assert begun.logins == [found.login, begun.wanted]
        assert begun.begun(["database"], "bob") == begun, "one that was begun goes on"
        assert begun.retired == begun.reached().retired == begun.finished().retired == []
        assert list(begun.finished().unfinished) == ["database"], "a release may have the login of before yet"
        found = begun.reached().finished()
        seen.append((found.login, found.retired))
    assert seen == [("_a", ["", "_b"]), ("_b", ["", "_a"]), ("_a", ["", "_b"])]
    assert Rotation().retired == [], "before the first one nobody else's role is touched"
    assert (Rotation().unused, found.begun(["database"], "alice").unused) == (["_a", "_b"], [""])


def test_what_is_half_done_is_told_with_who_began_it(tmp_path: Any) -> None:
    begun = Rotation().begun(["tokens", "superuser"], "alice@laptop")
    assert str(Rotation()) == "none"
    assert str(begun).startswith("half done: tokens since 20")
    assert "by alice@laptop. Run the site (make up) or --tags rotate to end it." in str(begun)
    assert [each.path for each in begun.differences()] == ["tokens", "superuser"]
    assert begun.wanted == "", "a login has its turn with the database's password alone"
    state = State(tmp_path)
    state.write_rotation(begun)
    assert state.rotation() == begun
    (tmp_path / "rotation.json").write_text('{"unknown": 1}')
    with pytest.raises(ValueError, match="not readable"):
        state.rotation()


def test_the_database_is_asked_for_what_the_state_says(tmp_path: Any) -> None:
    state = State(tmp_path)
    options = {"state_directory": str(tmp_path), "finish": False}
    state.write_rotation(Rotation().begun(["database"], "alice"))
    assert rotation_of(options).logins == ["", "_a"]
    record_reached(options | {"finish": True})
    assert state.rotation().login == "", "no release has been given it"
    record_reached(options)
    assert state.rotation().login == "_a"
    assert rotation_of(options).retired == []
    assert rotation_of(options | {"finish": True}).retired == ["", "_b"]
    assert rotation_of({"state_directory": None, "finish": False}) == Rotation()


def test_a_workload_has_the_role_and_the_password_file_of_its_login() -> None:
    assert with_login(WORKLOAD, "") == WORKLOAD
    found = with_login(WORKLOAD, "_b")
    assert found["environment"] == WORKLOAD["environment"] | {
        "TITANIC_DATABASE_USER": "people_app_b",
        "TITANIC_DATABASE_PASSWORD_FILE": "/s/app_b",
    }
    assert found["secret_files"] == {"write_tokens": "/s/tokens", "database_password_b": "/s/app_b"}
    assert with_login({"environment": {}, "secret_files": {}}, "_b") == {"environment": {}, "secret_files": {}}


def test_old_tokens_end_with_the_overlap_and_at_once_without() -> None:
    kept = "old\nended until 2001-01-01T00:00:00Z\nending until 2999-01-01T00:00:00Z"
    new, old, ending = tokens_text(kept, "new", 60).splitlines()
    assert (new, ending) == ("new", "ending until 2999-01-01T00:00:00Z")
    assert old.startswith("old until 20")
    assert tokens_text(kept, "new", None) == "new"
    assert tokens_text(kept, "old", None) == kept, "a run that changes nothing restarts nothing"
    assert tokens_text("old", "old\nnew", 60) == "old\nnew", "one that stays does not end"
    again = tokens_text("\n".join([new, old]), "newer", 60).splitlines()
    assert [line.partition(" until ")[0] for line in again] == ["newer", "new", "old"]


@pytest.mark.parametrize(
    ("kinds", "given", "said"),
    [
        (
            ["database"],
            {"database_app_password": "a"},
            "titanic_secrets_values: database_app_password is the one in use",
        ),
        (["superuser"], {"database_owner_password": "o"}, "titanic_secrets_values: database_owner_password is the one"),
        (["tokens"], {"write_tokens": "t"}, "titanic_api_write_tokens: these are the ones in use. Give the new ones."),
        (["tokens"], {"write_tokens": "t\nu"}, ""),
        (["database", "superuser"], {}, ""),
        (["superuser"], {"database_app_password": "a"}, ""),
    ],
)
def test_what_is_given_as_it_is_is_named(kinds: list[str], given: dict[str, object], said: str) -> None:
    kept = {"database_app_password": "a", "database_owner_password": "o", "write_tokens": "t\nv until 2999-01-01"}
    found = nothing_new(kinds, given, kept)
    assert len(found) == bool(said)
    assert "".join(found).startswith(said)


NAMES = {"database": "people", "owner": "people_owner", "user": "people_app"}
FACTS: dict[str, Any] = {
    "passwords": {"people_owner": verifier("o"), "people_app_a": verifier("a")},
    "roles": {"people_app": False, "people_app_a": True, "people_app_b": False, "people_owner": True},
    "administrator": verifier("s"),
    "memberships": [["people_app_a", "people_app", "postgres"], ["people_app_b", "people_app", "postgres"]],
    "settings": [],
    "owner": "people_owner",
    "grants": [["people_app", "CONNECT"]],
}
PASSWORDS = {"people_owner": "o", "people_app_a": "a", "postgres": "s"}


@pytest.mark.parametrize(
    ("wrong", "steps"),
    [
        ({}, []),
        ({"administrator": verifier("another")}, ["set the password of role postgres"]),
        ({"memberships": []}, ["put people_app_a into people_app"]),
        ({"roles": FACTS["roles"] | {"people_app": True}}, ["take the login of role people_app away"]),
        ({"roles": FACTS["roles"] | {"people_app_b": True}}, ["take the login of role people_app_b away"]),
        (
            {"roles": {}, "passwords": {"people_owner": verifier("o")}, "memberships": []},
            ["make role people_app", "make role people_app_a", "put people_app_a into people_app"],
        ),
        (
            {"memberships": [*FACTS["memberships"], ["people_app_a", "pg_monitor", "postgres"]]},
            ["take people_app_a out of pg_monitor"],
        ),
    ],
)
def test_a_role_that_is_a_group_signs_in_by_its_logins(wrong: dict[str, Any], steps: list[str]) -> None:
    assert list(role_steps(FACTS | wrong, NAMES, PASSWORDS, ["people_app", "people_app_b"])) == steps


@pytest.mark.parametrize("given", ["[database,tls]", "database, tls", "['database', 'tls']", ["database", "tls"]])
def test_kinds_are_named_in_a_list_or_as_a_command_line_has_it(given: object) -> None:
    assert kinds_of(given) == ["database", "tls"]
    assert kinds_of("") == kinds_of([]) == kinds_of({"database": 1}) == kinds_of(None) == []
