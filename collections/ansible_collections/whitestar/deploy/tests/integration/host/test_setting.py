# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A role's variable is what the inventory says, otherwise the role's own default, templates included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.tests.helpers import run_ansible


def look_up(place: Path, *names: str, **variables: Any) -> str:
    messages = [
        {
            "ansible.builtin.debug": {"msg": f"<{{{{ lookup('whitestar.deploy.setting', '{name}') }}}}>"},
            "ignore_errors": True,
        }
        for name in names
    ]
    return run_ansible(place, {"vars": variables, "tasks": messages}).stdout


def test_defaults_and_settings(tmp_path: Path) -> None:
    output = look_up(
        tmp_path,
        "titanic_api_port",
        "titanic_api_address",
        "titanic_database_local_bindir",
        "titanic_database_name",
        titanic_api_address="{{ '192.0.2' ~ '.1' }}",
        titanic_database_tools="/tools",
        titanic_database_name="{{ other }}",
        other="people",
    )
    assert "<5000>" in output
    assert "<192.0.2.1>" in output
    assert "</tools/postgresql/bin>" in output
    assert "<people>" in output
    assert "DEPRECATION" not in output


def test_what_has_no_value_is_refused_with_what_it_is(tmp_path: Path) -> None:
    output = look_up(tmp_path, "titanic_api_prot", "titanic_iceberg_size", "titanic_image_context")
    assert "titanic_api_prot is not set and role titanic_api has no default for it" in output
    assert "role titanic_iceberg has no default for it" in output
    assert "the directory of the project" in output


@pytest.mark.parametrize(("provider", "host"), [("local", "/data/run"), ("compose", "database")])
def test_a_default_rests_on_other_defaults_of_its_role(tmp_path: Path, provider: str, host: str) -> None:
    given = {"titanic_database_directory": "/data", "titanic_database_user": "people_app"}
    given |= {"titanic_database_password_file": "/app", "titanic_database_owner_password_file": "/owner"}
    given |= {"titanic_database_tools": "/tools", "titanic_provider": provider}
    output = look_up(tmp_path, "titanic_database_local_bindir", "titanic_database_connection", **given)
    assert "</tools/postgresql/bin>" in output
    assert "'name': 'titanic'" in output
    assert "'user': 'people_app'" in output
    assert f"'host': '{host}'" in output
