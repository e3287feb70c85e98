# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes privileges back never takes away, for a moment, one that is wanted; names are quoted."""

from __future__ import annotations

from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.grants import grant_steps

NAMES = {"database": "people", "owner": "people_owner", "user": 'people "app"'}
TABLE: dict[str, Any] = {"owner": "people_owner", "kind": "TABLE", "columns": []}
SCHEMA = [["pg_database_owner", "CREATE"], ["PUBLIC", "USAGE"], [NAMES["user"], "USAGE"]]


def steps(*grants: list[str], wanted: list[str], kind: str = "TABLE") -> list[str]:
    found = {"schema": SCHEMA, "defaults": [], "relations": {"Rows": TABLE | {"kind": kind, "grants": list(grants)}}}
    return list(grant_steps(found, NAMES, {"Rows": wanted}).values())


def test_what_is_as_it_was_granted_needs_nothing() -> None:
    assert steps([NAMES["user"], "SELECT"], ["people_owner", "SELECT"], ["analyst", "SELECT"], wanted=["SELECT"]) == []


def test_the_option_to_pass_on_goes_and_the_privilege_stays() -> None:
    given = [NAMES["user"], "SELECT WITH GRANT OPTION"]
    role = '"people ""app"""'
    assert steps(given, wanted=["SELECT"]) == [
        f'REVOKE GRANT OPTION FOR SELECT ON TABLE public."Rows" FROM {role} CASCADE'
    ]
    assert steps(given, wanted=[]) == [f'REVOKE SELECT ON TABLE public."Rows" FROM {role} CASCADE']


def test_everybody_and_sequences() -> None:
    assert steps(["PUBLIC", "USAGE"], wanted=["USAGE"], kind="SEQUENCE") == [
        'REVOKE USAGE ON SEQUENCE public."Rows" FROM PUBLIC CASCADE',
        'GRANT USAGE ON SEQUENCE public."Rows" TO "people ""app"""',
    ]
