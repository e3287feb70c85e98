# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Password verifiers are those of PostgreSQL itself."""

from __future__ import annotations

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import literal
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.scram import matches, verifier

PASSWORDS = ["secret", "with space and 'quote'", 'double " \\ back', "~!@#$%^&*()_+-=[]{};:,.<>/?", "x" * 200]


@pytest.mark.parametrize("password", PASSWORDS)
def test_postgresql_s_own_verifier_matches(cluster: PostgresServer, password: str) -> None:
    cluster.run_sql(
        f"DROP ROLE IF EXISTS scram_it; CREATE ROLE scram_it LOGIN PASSWORD {literal(password)};", "postgres"
    )
    kept = cluster.run_sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_it'")
    cluster.run_sql("DROP ROLE scram_it")
    assert matches(password, kept)
    assert not matches(password + "x", kept)


def test_postgresql_takes_ours_as_it_is(cluster: PostgresServer) -> None:
    ours = verifier("secret")
    cluster.run_sql(f"CREATE ROLE scram_ours LOGIN PASSWORD {literal(ours)}")
    kept = cluster.run_sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_ours'")
    cluster.run_sql("DROP ROLE scram_ours")
    assert kept == ours
