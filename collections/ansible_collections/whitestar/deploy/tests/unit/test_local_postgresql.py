# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs and data that do not fit are refused, and the remains of an attempt are no cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import (
    DatabaseError,
    PostgresServer,
)


def fake_postgres(bindir: Path, version: str) -> Path:
    bindir.mkdir()
    (bindir / "postgres").write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
    (bindir / "postgres").chmod(0o755)
    return bindir


@pytest.mark.parametrize("version", ["14.19", "9.6.24"])
def test_an_old_major_is_refused(place: Path, version: str) -> None:
    old = fake_postgres(place / "bin", version)
    with pytest.raises(
        DatabaseError, match=rf"titanic_database_local_bindir: {old} is PostgreSQL \d+\. Name 15 or later"
    ):
        PostgresServer(place, old, None).major()


@pytest.mark.parametrize("version", ["15.1", "17beta2", "18.6 (Debian 18.6-1.pgdg120+1)"])
def test_new_majors_are_taken(place: Path, version: str) -> None:
    assert PostgresServer(place, fake_postgres(place / "bin", version), None).major() >= 15


def test_missing_programs_are_named(place: Path) -> None:
    with pytest.raises(DatabaseError, match=f"titanic_database_local_bindir: {place} has no working 'postgres'"):
        PostgresServer(place, place, None).version()


def test_data_of_another_major_are_refused(place: Path) -> None:
    (place / "data").mkdir()
    (place / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(DatabaseError, match=r"PostgreSQL 15's, .* are 17\. Set titanic_database_local_bindir"):
        PostgresServer(place, fake_postgres(place / "bin", "17.2"), None).check_major()


def test_the_remains_of_an_attempt_are_no_cluster(place: Path) -> None:
    (place / "data.new").mkdir()
    (place / "data.new" / "PG_VERSION").write_text("18\n")
    assert not PostgresServer(place, place, None).exists()
