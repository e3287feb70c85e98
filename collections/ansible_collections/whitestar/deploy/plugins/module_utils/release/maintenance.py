# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintenance of a host: its front door answers everything itself while a file is there, without being reloaded."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    json_bytes,
    make_directory,
    read_json,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import request
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State

POLL_SECONDS = 0.1
# What the Caddyfile looks for; it is written last and removed first.
SWITCH = "problem.json"
RECORD = "record.json"
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Maintenance</title>
<style>
:root {{ color-scheme: light dark; font: 1.1rem/1.5 system-ui, sans-serif }}
body {{ max-width: 34rem; margin: 18vh auto; padding: 0 1rem; overflow-wrap: anywhere }}
</style>
<h1>Maintenance</h1>
<p>{message}</p>
</html>
"""


@dataclass(frozen=True)
class Maintenance:
    """What is said meanwhile: ``message`` in one line, after how many seconds to try again; who began it, and when."""

    message: str
    retry_seconds: int
    by: str
    at: str

    def __str__(self) -> str:
        """In one line, for people."""
        return f"since {self.at}, by {self.by}: {self.message}"

    @classmethod
    def of(cls, state: State) -> Maintenance | None:
        """The one that is on. Raises ValueError if it cannot be read."""
        if not (directory(state) / SWITCH).exists():
            return None
        return cls(**read_json(directory(state) / RECORD, {}))

    def files(self) -> dict[str, bytes]:
        """What the front door reads, by name, in the order in which it is written."""
        problem = {
            "type": "urn:titanic:problem:maintenance",
            "title": "Maintenance",
            "status": 503,
            "detail": self.message,
        }
        return {
            RECORD: json_bytes(asdict(self)),
            "retry_after": str(self.retry_seconds).encode(),
            "page.html": PAGE.format(message=html.escape(self.message)).encode(),
            SWITCH: json.dumps(problem, ensure_ascii=False).encode(),
        }

    def begin(self, state: State) -> None:
        """From now on the front door answers everything itself. What it has passed on already is not touched."""
        place = directory(state)
        make_directory(place, 0o755)
        for name, content in self.files().items():
            if not has_content(place / name, content, 0o644):
                write_atomically(place / name, content, 0o644)


def wanted(options: Mapping[str, Any], now: Maintenance | None) -> Maintenance | None:
    """The maintenance that is to be; the one that is on stays as it is when it says the same."""
    if not options["enabled"]:
        return None
    same = now and (now.message, now.retry_seconds) == (options["message"], options["retry_seconds"])
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return now if same else Maintenance(options["message"], options["retry_seconds"], options["by"], at)


def end(state: State) -> None:
    """From now on the front door passes everything on again."""
    for name in (SWITCH, RECORD):
        (directory(state) / name).unlink(missing_ok=True)


def in_flight(state: State) -> int:
    """How many requests the front door is passing on now, as it says itself. Raises OSError and HTTPException."""
    answer = request(f"unix:{state.front / 'admin.sock'}", "/reverse_proxy/upstreams")
    found: list[dict[str, Any]] = answer.json() or []
    return sum(int(upstream["num_requests"]) for upstream in found)


def wait_until_idle(state: State, seconds: float) -> int:
    """Wait until the front door passes nothing on any more; how many requests are left after ``seconds``."""
    deadline = time.monotonic() + seconds
    # One that came just before may be about to be passed on.
    time.sleep(POLL_SECONDS)
    while (left := in_flight(state)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return left


def directory(state: State) -> Path:
    """Where the front door looks."""
    return state.front / "maintenance"
