# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server still needs is found in one question."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.roles import (
    role_steps,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.scram import verifier

NAMES = {"database": "people", "owner": "people_owner", "user": "people_app"}


PASSWORDS = {"people_owner": "hunter2-owner", "people_app": "hunter2-user"}


KEPT = {role: verifier(password) for role, password in PASSWORDS.items()}


RIGHT: dict[str, Any] = {
    "passwords": KEPT,
    "memberships": [],
    "settings": [],
    "owner": "people_owner",
    "grants": [["people_app", "CONNECT"], ["people_owner", "CREATE"]],
}


CONNECT = "let only the two roles connect"


def test_nothing_is_needed_where_all_is_right() -> None:
    assert role_steps(RIGHT, NAMES, PASSWORDS) == {}


@pytest.mark.parametrize(
    ("wrong", "steps"),
    [
        ({"passwords": {}}, ["make role people_owner", "make role people_app"]),
        ({"passwords": KEPT | {"people_app": verifier("old")}}, ["set the password of role people_app"]),
        ({"passwords": KEPT | {"people_app": ""}}, ["set the password of role people_app"]),
        ({"owner": "postgres"}, ["give database people to people_owner"]),
        ({"grants": [*RIGHT["grants"], ["PUBLIC", "CONNECT"]]}, [CONNECT]),
        ({"grants": [*RIGHT["grants"], ["people_app", "TEMPORARY"]]}, [CONNECT]),
        ({"grants": []}, [CONNECT]),
        ({"owner": None, "grants": None}, ["make database people", CONNECT]),
        ({"memberships": [["people_app", "pg_monitor", "postgres"]]}, ["take people_app out of pg_monitor"]),
        ({"settings": [["people_app", None]]}, ["reset the settings of role people_app"]),
    ],
)
def test_each_thing_that_is_wrong_is_one_step(wrong: dict[str, Any], steps: list[str]) -> None:
    assert list(role_steps(RIGHT | wrong, NAMES, PASSWORDS)) == steps


def test_no_password_is_in_the_statements() -> None:
    facts = RIGHT | {"passwords": {"people_app": verifier("old")}}
    statements = "".join(role_steps(facts, NAMES, PASSWORDS).values())
    assert "hunter2" not in statements
    assert statements.count("SCRAM-SHA-256$") == 2
