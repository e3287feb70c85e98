# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drift as modules tell of it: differences in lines, without a secret of the target in any."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import Difference
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import redacted
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Records

# What people put under such a name is nobody's business, whether it is a secret of the target or not.
SECRETIVE = re.compile(r"(?i)passw|secret|token|credential|private.?key|api.?key")
NOT_SECRETIVE = ("_FILE", "secretName")
NOT_SHOWN = "(not shown)"


def _veiled(value: Any, name: str) -> Any:
    """A value without texts that have, as a field or as a variable does, the ``name`` of a secret."""
    if isinstance(value, Mapping):
        label = value.get("name")
        named = isinstance(label, str) and isinstance(value.get("value"), str)
        return {key: _veiled(item, str(label) if named and key == "value" else key) for key, item in value.items()}
    if isinstance(value, list):
        return [_veiled(item, name) for item in value]
    hidden = isinstance(value, str) and SECRETIVE.search(name) and not name.endswith(NOT_SECRETIVE)
    return NOT_SHOWN if hidden else value


def summary(differences: Sequence[Mapping[str, Any]], unknown: Iterable[str]) -> list[str]:
    """What is to be said of what :func:`told` gave, and of what could not be compared, in lines."""
    count = len(differences)
    first = f"{count} difference{'s' if count > 1 else ''} from what was applied:"
    return [
        first if count else "no drift: all is as it was applied",
        *(f"- {each['text']}" for each in differences),
        *(f"not compared: {each}" for each in unknown),
    ]


def told(records: Records, found: Iterable[Difference]) -> list[dict[str, Any]]:
    """Differences as a module gives them back, with a line of ``text`` for each, and no secret of the target in any."""
    shown_so = [
        replace(each, applied=_veiled(each.applied, each.path), live=_veiled(each.live, each.path)) for each in found
    ]
    things = [asdict(each) | {"text": str(each)} for each in shown_so]
    answer: list[dict[str, Any]] = json.loads(redacted(records, json.dumps(things)))
    return answer
