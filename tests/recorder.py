"""Takes the place of action plugins: notes what a module, ours or a collection's, would have been given; runs none.

``tests/repository/test_options.py`` puts it into a copy of the collection. Roles, playbooks, filters and the preflight
are the real ones, so that what is noted is what an inventory's settings lead to.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# What any of the modules may give back that roles go on with.
ANSWER: dict[str, Any] = {
    "changed": False,
    "image": {
        "reference": "registry.example.org/titanic@sha256:ab",
        "identity": "ab",
        "description": {"version": "2.1.0", "schema": {"required": "0001", "oldest_tolerated": "0001"}},
    },
    "live": {"release": "ab-cd"},
    "live_image": "registry.example.org/titanic@sha256:ab",
    "release": "ab-cd",
    "action": "none",
    "entry": {"number": 1},
    "serving": "ef-gh",
    "steps": [],
    "written": [],
    "answer": {},
    "repeated": False,
    "planned": False,
    "reality": {},
    "settings": {},
    "differences": ["something"],
    "said": ["something differs"],
    "status": {},
    "until": "tomorrow",
    "apply": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "changed"}}],
    "remove": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "unwanted"}}],
    "pending": True,
    "compose": [{"state": "present", "services": ["one"], "recreate": "auto", "profiles": [], "scale": {}}],
}


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Note the task and its arguments, one JSON object a line, in a file of the host's name."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What a run that finds nothing to do would give back."""
        super().run(tmp, task_vars)
        noted = {"task": self._task.get_name(), "no_log": bool(self._task.no_log), "arguments": self._task.args}
        path = Path(os.environ["TEST_RECORDS"]) / f"{(task_vars or {})['inventory_hostname']}.jsonl"
        with path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(noted, sort_keys=True, default=str) + "\n")
        return dict(ANSWER)
