# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rotation of a host as its database has to follow it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import Rotation


def rotation_of(options: Mapping[str, Any]) -> Rotation:
    """The rotation of the ``state_directory``, if there is one; as it is at its end, if the run is to ``finish`` it.

    Raises ValueError.
    """
    place = options["state_directory"]
    found = State(Path(place)).rotation() if place else Rotation()
    return found.finished() if options["finish"] else found


def record_reached(options: Mapping[str, Any]) -> None:
    """Record that the database knows the wanted login: releases that are started from now on have it.

    At the end of a rotation those that serve are started already.
    """
    if options["state_directory"] and not options["finish"]:
        state = State(Path(options["state_directory"]))
        found = state.rotation()
        if found.login != found.wanted:
            state.write_rotation(found.reached())
