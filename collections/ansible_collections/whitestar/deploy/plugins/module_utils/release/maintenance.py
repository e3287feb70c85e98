# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users are told during a maintenance: the message, and the files that a reverse proxy answers with."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import json_bytes

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

    def files(self) -> dict[str, bytes]:
        """What the reverse proxy reads, by name, in the order in which it is written."""
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


def wanted(options: Mapping[str, Any], now: Maintenance | None) -> Maintenance | None:
    """The maintenance that is to be; the one that is on stays as it is when it says the same."""
    if not options["enabled"]:
        return None
    same = now and (now.message, now.retry_seconds) == (options["message"], options["retry_seconds"])
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return now if same else Maintenance(options["message"], options["retry_seconds"], options["by"], at)


def result(now: Maintenance | None, then: Maintenance | None) -> dict[str, Any]:
    """What a module gives back that has brought the one about instead of the other."""
    return {
        "changed": now != then,
        "maintenance": asdict(then) if then else {},
        "diff": {"before": f"{now or 'no maintenance'}\n", "after": f"{then or 'no maintenance'}\n"},
    }
