# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server still needs is found in one question, and the SQL for it works on a real one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import identifier
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.roles import (
    ensure_roles,
    read_passwords,
)


@pytest.fixture
def options(cluster: PostgresServer, place: Path) -> Iterator[dict[str, Any]]:
    """Options for a database with an odd name, which is removed afterwards."""
    odd = f"""o'clock "{os.getpid()}" $$"""
    given = {"database": odd, "owner": f"{odd} owner", "user": f"{odd} user"}
    for role in ("owner", "user"):
        given[f"{role}_password_file"] = str(place / role)
        (place / role).write_text(f"hunter2-{role}\n")
    yield given
    cluster.run_sql(f"DROP DATABASE IF EXISTS {identifier(odd)}")
    for role in ("owner", "user"):
        cluster.run_sql(f"DROP ROLE IF EXISTS {identifier(given[role])}")


def test_a_server_is_brought_to_it_once(cluster: PostgresServer, options: dict[str, Any]) -> None:
    def kept(*, check: bool) -> list[str]:
        return ensure_roles(cluster, options, read_passwords(options), check=check)

    seen = kept(check=True)
    assert len(seen) == 4
    assert cluster.query("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'o''clock%'") == 0
    assert kept(check=False) == seen
    assert kept(check=True) == kept(check=False) == []
    Path(options["user_password_file"]).write_text("another")
    assert kept(check=False) == [f"set the password of role {options['user']}"]
    assert kept(check=False) == []


def test_a_run_that_was_cut_off_goes_on(cluster: PostgresServer, options: dict[str, Any]) -> None:
    cluster.run_sql(f"CREATE ROLE {identifier(options['owner'])}")
    assert ensure_roles(cluster, options, read_passwords(options), check=False)[0] == f"make role {options['owner']}"
    assert ensure_roles(cluster, options, read_passwords(options), check=True) == []
