# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Compose target without an engine: the file that is written, the workload in it, and what is said of an engine."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.whitestar.deploy.tests.helpers import (
    lock_options,
    run_module,
)


def test_a_run_begins_with_what_the_engine_lacks(place: Path) -> None:
    given = lock_options(
        place / "state",
        engine={"socket": f"{place}/docker.sock", "program": "docker", "project": "people"},
        deploys=False,
    )
    for check in (True, False):
        message = run_module("host_lock", given, check=check).message
        assert message.startswith("titanic_engine: no Docker engine answers at")
    assert not (place / "state").exists()
