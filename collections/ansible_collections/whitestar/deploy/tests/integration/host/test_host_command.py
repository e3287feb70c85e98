# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of the release runs when it must, says what it changed, and its failure is told in its own words."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.tests.helpers import Result, make_image, run_module


@pytest.fixture
def image(state: State) -> Path:
    return make_image(state, "aaaaaaaaaaaa")


def run(image: Path, *words: str, check: bool = False, **options: Any) -> Result:
    environment = {"TINY_DONE": str(image.parent / "done")}
    image.parent.chmod(0o777)  # whoever the command runs as
    given = {"image": str(image), "command": ["tiny", *words], "check_argument": "--check", "environment": environment}
    return run_module("host_command", given | options, check=check)


def test_twelve_steps(image: Path) -> None:
    seen = run(image, "migrate", check=True)
    assert seen.changed
    assert not (image.parent / "done").exists()
    done = run(image, "migrate")
    assert done.changed
    assert done["answer"] == seen["answer"] == {"from": None, "to": "0001", "changed": True}
    assert not run(image, "migrate", check=True).changed
    again = run(image, "migrate")
    assert not again.changed
    assert again["answer"]["changed"] is False
    assert again["diff"] == {"before": "", "after": ""}


def test_a_failure_is_told_in_the_release_s_words(image: Path) -> None:
    message = run(image, "fail").message
    assert message == "tiny fail failed (1): tiny release: this migration cannot be applied"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up being root")
def test_a_command_is_not_root_and_reads_what_only_root_may(state: State, image: Path) -> None:
    """The serving program is another user, so that it cannot come by what a migration has: the owner's password."""
    secret, rows = state.root / "owner_password", state.root / "people.csv"
    for path in (secret, rows):
        path.write_text(path.name)
        path.chmod(0o600)
    environment = {"TINY_SECRET": str(secret)}
    lent: dict[str, Any] = {"environment": environment, "secret_files": {"password": str(secret), "csv": str(rows)}}
    found = run(image, "read", str(rows), **lent)
    assert found["answer"] == {"account": [10003, 10003], "text": ["owner_password", "people.csv"]}
    assert "Permission denied" in run(image, "read", str(rows), environment=environment).message
    (state.root / "people.csv").unlink()
    assert (
        f"could not be started: [Errno 2] No such file or directory: '{rows}'"
        in run(image, "read", str(rows), **lent).message
    )


def test_a_failure_can_be_that_of_a_release(state: State, image: Path) -> None:
    (state.root / "secrets").mkdir()
    (state.root / "secrets" / "password").write_text("cannot be applied")
    (state.database / "log").mkdir(parents=True)
    (state.database / "log" / "postgresql-Mon.log").write_text("ERROR:  division by zero\n")
    description = json.dumps({"version": "1.2.3", "schema": {"required": "0004", "oldest_tolerated": "0003"}})
    (image / "image.json").write_text(json.dumps({"identity": "a" * 64, "description": description}))
    failure = {"state_directory": str(state.root), "by": "alice@laptop"}
    assert "evidence" not in run(image, "fail", check=True, failure=failure).message
    assert state.ledger().entries == ()
    message = run(image, "fail", failure=failure).message
    path = state.failure_reports / "000001-aaaaaaaaaaaa.txt"
    assert message == f"tiny fail failed (1): tiny release: this migration [password]\nevidence: {path}"
    (entry,) = state.ledger().entries
    assert (entry.release, entry.outcome, entry.schema_required) == ("aaaaaaaaaaaa", "failed", "0004")
    text = path.read_text()
    for words in ("tiny release: this migration [password]", "ERROR:  division by zero", '"fail"', "TINY_DONE"):
        assert words in text
    message = run(image, "sleep", failure=failure, seconds=0.3).message
    assert message.startswith("tiny sleep took longer than 0.3 s and was ended\nevidence: ")
    done = run(image, "migrate", failure=failure)
    assert done.changed
    assert len(state.ledger().entries) == 2


def test_an_answer_that_is_no_json_is_a_failure(image: Path) -> None:
    assert "mumble failed (0)" in run(image, "mumble").message


def test_a_command_that_takes_too_long_is_ended(image: Path) -> None:
    assert "sleep took longer than 0.3 s and was ended" in run(image, "sleep", seconds=0.3).message


@pytest.mark.parametrize("missing", ["program", "socket"])
def test_what_is_not_there_yet_would_run_in_check_mode(image: Path, missing: str) -> None:
    options: dict[str, Any] = (
        {"required_files": [str(image / "socket")]} if missing == "socket" else {"command": ["tony"]}
    )
    seen = run(image, "migrate", check=True, **options)
    assert seen.changed
    assert seen["answer"] == {}
    message = run(image, "migrate", **options).message
    assert "is missing. Run the whole site once" in message
    assert not (image.parent / "done").exists()


def test_a_program_that_cannot_start_is_named(image: Path) -> None:
    (image / "bin" / "tiny").write_text("#!/nowhere/python\n")
    assert "could not be started" in run(image, "migrate").message
