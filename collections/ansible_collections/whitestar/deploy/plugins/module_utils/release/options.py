# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options (doc_fragments/twins.py explains them) and answers of a module for hosts and its twin for clusters."""

from __future__ import annotations

from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import json_bytes
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import TLS_OPTION

TEXT = {"type": "str", "required": True}
# How many of the ledger's entries a report has.
LEDGER_LINES = 10
STATES = ["reported", "stopped", "started", "absent"]

LOCK: dict[str, Any] = {
    "state": TEXT | {"choices": ["present", "absent"]},
    "owner": {"type": "dict", "required": True},
    "lease_seconds": {"type": "int", "default": 3600},
    "deploys": {"type": "bool", "default": True},
    "continues": {"type": "bool", "default": False},
    "needs_running": {"type": "bool", "default": False},
    "looks": {"type": "bool", "default": False},
}
LIFECYCLE: dict[str, Any] = {
    "state": {"type": "str", "choices": STATES, "default": "reported"},
    "by": {"type": "str", "default": "somebody"},
    "ready_seconds": {"type": "float", "default": 30},
    "address": TEXT,
    "probes": {"type": "dict", "required": True},
    "url": {"type": "str"},
    "tls": TLS_OPTION,
}
MAINTENANCE: dict[str, Any] = {
    "enabled": {"type": "bool", "required": True},
    "message": TEXT,
    "retry_seconds": {"type": "int", "default": 60},
    "by": TEXT,
}
ANALYSIS: dict[str, Any] = {
    "seconds": {"type": "float", "default": 0},
    "error_share": {"type": "float", "default": 0.02},
    "mean_seconds": {"type": "float", "default": 1},
}
RELEASE: dict[str, Any] = {
    "workload": {"type": "dict"},
    "restore": {"type": "int"},
    "by": TEXT,
    "why": TEXT,
    "ready_seconds": {"type": "float", "default": 30},
    "analysis": {"type": "dict", "default": {}, "options": ANALYSIS},
    "keep": {"type": "int", "default": 5},
    "reverse_proxy": {"type": "dict", "options": {"address": TEXT, "host": {"type": "str"}, "tls": TLS_OPTION}},
}


def lifecycle_result(status: dict[str, Any], steps: list[str], *, removes: bool) -> dict[str, Any]:
    """What a module gives back that reports, stops, starts or removes."""
    before = json_bytes(status).decode() if removes else ""
    diff = {"before": before, "after": "" if removes else "".join(f"{step}\n" for step in steps)}
    return {"changed": removes or bool(steps), "status": status, "steps": steps, "diff": diff}
