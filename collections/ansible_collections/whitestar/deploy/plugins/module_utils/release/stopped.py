# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment that was stopped: by whom and since when. Its data, secrets, releases and records are all there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import Difference

REMEDY = "--tags start (make start) starts it again"


@dataclass(frozen=True)
class Stopped:
    """Who stopped it and when. ``replicas`` is how many pods there were on a cluster."""

    by: str
    at: str
    replicas: int = 0

    def __str__(self) -> str:
        """In one line, for people."""
        return f"since {self.at}, by {self.by}: {REMEDY}"

    @classmethod
    def now(cls, by: str, replicas: int = 0) -> Stopped:
        """From now on."""
        return cls(by, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", replicas)

    @classmethod
    def of_text(cls, text: str) -> Stopped:
        """From what :meth:`text` has written."""
        return cls(**json.loads(text))

    def difference(self, what: str) -> Difference:
        """As drift tells of it; what does not run differs in nothing else that counts."""
        return Difference(what, said=f"is stopped: {REMEDY}", by=self.by, at=self.at)

    def text(self) -> str:
        """As an annotation has it."""
        return json.dumps(asdict(self), sort_keys=True)


def refusal(stopped: Stopped | None) -> list[str]:
    """One sentence where a run needs what is stopped; nothing otherwise."""
    return [f"the deployment is stopped {stopped}, and then this run can be done"] if stopped else []
