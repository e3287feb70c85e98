# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of all rooms: a place that others may enter, and a state directory in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS
from ansible_collections.whitestar.deploy.tests.helpers import (
    open_directory,
)


@pytest.fixture
def place() -> Iterator[Path]:
    found = open_directory()
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.fixture
def state(place: Path) -> Iterator[State]:
    """An empty state directory; whatever was started in it is ended."""
    found = State(place / "state")
    found.root.mkdir()
    yield found
    for name in ("caddy", "door", *COLOURS):
        if found.run.is_dir():
            found.daemon(name).stop(0.2)
