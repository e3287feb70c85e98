# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's reverse proxy does while a file is there, without being reloaded: maintenance, closing connections."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    make_directory,
    read_json,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import request
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.maintenance import RECORD, SWITCH, Maintenance

POLL_SECONDS = 0.1


def current(state: State) -> Maintenance | None:
    """The one that is on. Raises ValueError if it cannot be read."""
    if not (directory(state) / SWITCH).exists():
        return None
    return Maintenance(**read_json(directory(state) / RECORD, {}))


def begin(maintenance: Maintenance, state: State) -> None:
    """From now on the reverse proxy answers everything itself. What it has passed on already is not touched."""
    place = directory(state)
    make_directory(place, 0o755)
    for name, content in maintenance.files().items():
        if not has_content(place / name, content, 0o644):
            write_atomically(place / name, content, 0o644)


def end(state: State) -> None:
    """From now on the reverse proxy passes everything on again."""
    for name in (SWITCH, RECORD):
        (directory(state) / name).unlink(missing_ok=True)


def in_flight(state: State) -> int:
    """How many requests the reverse proxy is passing on now, as it says itself. Raises OSError and HTTPException."""
    answer = request(f"unix:{state.front / 'admin.sock'}", "/reverse_proxy/upstreams")
    found: list[dict[str, Any]] = answer.json() or []
    return sum(int(upstream["num_requests"]) for upstream in found)


def wait_until_idle(state: State, seconds: float) -> int:
    """Wait until the reverse proxy passes nothing on any more; how many requests are left after ``seconds``."""
    deadline = time.monotonic() + seconds
    # One that came just before may be about to be passed on.
    time.sleep(POLL_SECONDS)
    while (left := in_flight(state)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return left


@contextmanager
def connections_closing(state: State, seconds: float) -> Iterator[None]:
    """Have the reverse proxy close each connection with its answer, for so many ``seconds`` before the block and in it.

    A reload closes connections that lie idle, which a client may be about to use. Without seconds nothing is closed.
    """
    # As the reverse proxy's configuration has it: roles/titanic_api/templates/Caddyfile.j2.
    mark = state.front / "closing"
    try:
        if seconds and mark.parent.is_dir():
            mark.touch(0o644)
            time.sleep(seconds)
        yield
    finally:
        mark.unlink(missing_ok=True)


def directory(state: State) -> Path:
    """Where the reverse proxy looks."""
    return state.front / "maintenance"
