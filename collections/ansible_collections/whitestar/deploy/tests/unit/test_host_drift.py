# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told without a release that runs, and sizes as engines and people write them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import NAME, edited, record_checksums
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.drift import size
from ansible_collections.whitestar.deploy.plugins.module_utils.host.drift import files_drift
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.drift import processes_drift


def test_notes_are_kept_of_what_is_there(place: Path) -> None:
    for name in ("one", "two"):
        (place / name).write_text(name)
    record_checksums(place, {"one": b"one", "two": b"two"})
    assert list(edited(place)) == []
    written = (place / NAME).stat().st_mtime_ns
    record_checksums(place, {"one": b"one"})
    assert (place / NAME).stat().st_mtime_ns == written
    record_checksums(place, {"two": None})
    assert json.loads((place / NAME).read_text()).keys() == {"one"}


@pytest.mark.parametrize(
    ("text", "expected"), [("64m", 2**26), ("1g", 2**30), ("512k", 2**19), ("1.5gb", 1610612736), ("7", 7)]
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


def test_what_is_gone_is_told(place: Path) -> None:
    state = State(place)
    workload = {"user": os.geteuid(), "release": "r1", "secret_files": {"password": f"{place}/secrets/password"}}
    assert [str(each) for each in files_drift(state, workload, containers=False)] == ["file secrets/password: is gone"]
    assert [str(each) for each in processes_drift(state, workload)] == ["process caddy: does not run"]
