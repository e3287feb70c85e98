# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which volume has the data of the database that serves: the first one, or the one that was last restored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State

FIRST = "database"


def volume_file(state: State) -> Path:
    """Where a restore leaves the name of its volume."""
    return state.backup / "volume"


def data_volume(state: State) -> str:
    """The key of the volume in the Compose file."""
    try:
        return volume_file(state).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return FIRST


def with_data_volume(
    definition: Mapping[str, Any], volumes: Mapping[str, Any], volume: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A service and its volumes with this volume in the place of the first one."""
    mounts = [
        f"{volume}{str(mount)[len(FIRST) :]}" if str(mount).startswith(f"{FIRST}:") else mount
        for mount in definition.get("volumes", [])
    ]
    own = {volume if name == FIRST else name: options for name, options in volumes.items()}
    return {**definition, "volumes": mounts}, own
