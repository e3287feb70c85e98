# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan says what would be done, keeps secrets to itself, and notices whatever has moved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.action.plan import changed_settings, fingerprints, read, steps
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import make_directory
from ansible_collections.whitestar.deploy.plugins.module_utils.host.fingerprint import fingerprint, reality
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.processes import running_processes
from ansible_collections.whitestar.deploy.tests.helpers import UNCHANGED_STAGES, history

OPTIONS: dict[str, dict[str, Any]] = {
    "titanic_api_port": {"type": "int"},
    "titanic_api_write_tokens": {"type": "list", "no_log": True},
    "titanic_seed_csv": {"type": "path"},
    "titanic_plan": {"type": "path"},
}


def test_each_setting_has_a_fingerprint_and_a_secret_s_is_salted() -> None:
    values = {
        "titanic_api_port": 5000,
        "titanic_api_write_tokens": ["t"],
        "titanic_plan": "p",
        "titanic_preflight_plans": 1,
        "titanic_image_registry_login": {"username": "u", "password": "the token of one job"},
    }
    first, second = fingerprints(values, OPTIONS, "salt"), fingerprints(values, OPTIONS, "other salt")
    assert set(first) == {"titanic_api_port", "titanic_api_write_tokens"}
    assert first == fingerprints(values, OPTIONS, "salt")
    assert changed_settings(first, second) == ["titanic_api_write_tokens"]
    assert changed_settings(first, fingerprints(values | {"titanic_api_port": "5000"}, OPTIONS, "salt")) == [
        "titanic_api_port"
    ]
    assert changed_settings(first, {}) == sorted(first)


def test_a_data_set_counts_by_its_content(tmp_path: Path) -> None:
    data = tmp_path / "people.csv"
    data.write_text("one")
    values = {"titanic_seed_csv": str(data)}
    before = fingerprints(values, OPTIONS, "")
    data.write_text("two")
    assert changed_settings(before, fingerprints(values, OPTIONS, "")) == ["titanic_seed_csv"]


@pytest.mark.parametrize(
    ("stage", "said", "words"),
    [
        ("image", {"identity": "i", "description": {}}, "image: build i"),
        ("target", {"steps": ["make /srv"]}, "target: make /srv"),
        ("secrets", {"steps": ["write key"]}, "secrets: write key"),
        ("database", {"steps": ["start"]}, "database: start"),
        ("backup", {"steps": ["make the first backup"]}, "backup: make the first backup"),
        ("schema", {"changed": True, "from": "", "to": "2"}, "schema: migrate from nothing to 2"),
        ("schema", {}, "schema: migrate to what the release needs, as it will say once it is built"),
        ("seed", {"changed": True, "inserted": 2, "updated": 1}, "seed: insert 2 and update 1 rows"),
        ("seed", {}, "seed: load the data set, as the release will say"),
        ("api", {"action": "none", "front": ["reload the service proxy"]}, "api: reload the service proxy"),
        ("api", {"action": "deployed", "release": "r2", "front": []}, "api: deploy release r2"),
    ],
)
def test_the_steps_are_said_in_words(stage: str, said: dict[str, Any], words: str) -> None:
    assert steps(UNCHANGED_STAGES | {stage: said}) == [words]


def test_nothing_to_do_is_no_step() -> None:
    assert steps(UNCHANGED_STAGES) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 0, "targets": {}}', '{"format": 1, "targets": []}'])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan").write_text(text)
    with pytest.raises(ValueError, match="Name another file"):
        read(tmp_path / "plan")


def test_whatever_moves_on_a_target_is_named(tmp_path: Path) -> None:
    state = State(tmp_path)
    make_directory(state.images, 0o755)
    seen = reality(state, running_processes(state))

    def now_moved() -> list[str]:
        return changed_settings(seen, reality(state, running_processes(state)))

    assert now_moved() == []
    state.write_ledger(history("r1"))
    assert now_moved() == ["the last release in the ledger"]
    (state.images / "0123456789ab").mkdir()  # an image that somebody tried out is no part of the plan
    assert now_moved() == ["the last release in the ledger"]
    (tmp_path / "Caddyfile").write_text("{}")
    assert "the settings on the target" in now_moved()
    make_directory(tmp_path / "secrets", 0o700)
    secret = tmp_path / "secrets" / "key"
    secret.write_text("one")
    fingerprint(state, [str(secret)], check=False)
    before = reality(state, running_processes(state))
    secret.write_text("two")
    assert changed_settings(before, reality(state, running_processes(state))) == ["the secrets"]
    assert "one" not in json.dumps(before)
