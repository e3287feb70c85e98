# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are files for their owner alone, stay what they are, and are shown nowhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.tests.helpers import Result, run_module, spool

SECRET = "hunter2-é-'\"$x"


def keep(directory: Path, *, check: bool = False, **options: Any) -> Result:
    return run_module("host_secrets", {"directory": str(directory)} | options, check=check)


def test_twelve_steps_of_a_given_secret(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    for value in (SECRET, "another"):
        before = spool(tmp_path)
        seen = keep(directory, given={"token": value}, check=True)
        assert seen.changed
        assert spool(tmp_path) == before
        done = keep(directory, given={"token": value})
        assert done.changed
        assert done["written"] == ["token"]
        assert seen["written"] == done["written"]
        assert (directory / "token").read_text() == value
        assert not keep(directory, given={"token": value}, check=True).changed
        assert not keep(directory, given={"token": value}).changed


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    keep(tmp_path / "secrets", given={"token": SECRET}, generated=["password"])
    assert (tmp_path / "secrets").stat().st_mode & 0o7777 == 0o700
    for name in ("token", "password"):
        assert (tmp_path / "secrets" / name).stat().st_mode & 0o7777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_a_program_reads_that_is_not_root_is_its_own_and_it_can_come_by(tmp_path: Path) -> None:
    keep(tmp_path / "secrets", generated=["password", "other"])
    shared: dict[str, Any] = {"generated": ["password", "other"], "owners": {"password": 10001}, "shared": True}
    assert keep(tmp_path / "secrets", **shared)["written"] == ["password"]
    found = [(path.stat().st_uid, path.stat().st_mode & 0o7777) for path in (tmp_path / "secrets", *secrets(tmp_path))]
    assert found == [(0, 0o711), (0, 0o600), (10001, 0o600)]
    assert not keep(tmp_path / "secrets", **shared).changed


def secrets(place: Path) -> list[Path]:
    return [place / "secrets" / name for name in ("other", "password")]


def test_a_mode_that_was_opened_is_closed(tmp_path: Path) -> None:
    keep(tmp_path / "secrets", generated=["password"])
    before = spool(tmp_path)
    (tmp_path / "secrets" / "password").chmod(0o644)
    assert keep(tmp_path / "secrets", generated=["password"]).changed
    assert (tmp_path / "secrets" / "password").stat().st_mode & 0o7777 == 0o600
    assert spool(tmp_path) == before


def test_a_generated_secret_is_long_random_and_stays(tmp_path: Path) -> None:
    assert keep(tmp_path / "a", generated=["one", "two"]).changed
    one, two = ((tmp_path / "a" / name).read_text() for name in ("one", "two"))
    assert len(one) == 43
    assert one != two
    assert not keep(tmp_path / "a", generated=["one", "two"]).changed
    assert (tmp_path / "a" / "one").read_text() == one


def test_given_wins_over_generated_and_is_kept_when_it_is_given_no_more(tmp_path: Path) -> None:
    keep(tmp_path / "a", generated=["one"])
    assert keep(tmp_path / "a", given={"one": SECRET}, generated=["one"]).changed
    assert not keep(tmp_path / "a", generated=["one"]).changed
    assert (tmp_path / "a" / "one").read_text() == SECRET


def test_a_lasting_secret_gets_no_other_value(tmp_path: Path) -> None:
    place = tmp_path / "a"
    assert keep(place, generated=["key"], lasting=["key"]).changed
    before = (place / "key").read_text()
    for check in (True, False):
        done = keep(place, given={"key": SECRET, "other": SECRET}, lasting=["key"], check=check)
        assert f"titanic_secrets_values: key is not the one in {place / 'key'}" in done.message
        assert SECRET not in done.output
    assert (place / "key").read_text() == before
    assert not (place / "other").exists()
    (place / "key").unlink()
    assert keep(place, given={"key": SECRET}, lasting=["key"]).changed
    assert not keep(place, given={"key": SECRET}, lasting=["key"]).changed


def test_an_empty_file_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "one").touch(0o600)
    assert keep(tmp_path, generated=["one"]).changed
    assert len((tmp_path / "one").read_text()) == 43


@pytest.mark.parametrize("check", [True, False])
def test_no_value_is_shown(tmp_path: Path, check: bool) -> None:
    done = keep(tmp_path / "a", given={"token": SECRET}, generated=["password"], check=check)
    assert "hunter2" not in done.output
    if not check:
        assert (tmp_path / "a" / "password").read_text() not in done.output


def test_a_refusal_writes_nothing(tmp_path: Path) -> None:
    done = keep(tmp_path / "a", given={"good": "one", "token": 12345678})
    assert "titanic_secrets_values: 'token' must be a text that is not empty. Quote numbers." in done.message
    assert "12345678" not in done.output
    assert not (tmp_path / "a").exists()
