# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The capsule: one file with the evidence of a failed release, secrets taken out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible_collections.whitestar.deploy.plugins.module_utils.files import (
    exclusively,
    json_bytes,
    make_directory,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.ledger import Entry
from ansible_collections.whitestar.deploy.plugins.module_utils.state import State

CAPSULES_KEPT = 10
SHORTEST_SECRET = 4  # a shorter one would blacken ordinary words
# The option of modules whose failure ends a release before it can be started.
FAILURE_OPTION = {
    "type": "dict",
    "options": {"state_directory": {"type": "path", "required": True}, "by": {"type": "str", "required": True}},
}


def write_capsule(
    state: State,
    entry: Entry,
    reason: str,
    evidence: Mapping[str, str],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Path:
    """Write the evidence of the failed ``entry`` and return where; ``before`` and ``after`` are workloads.

    The content of every file below the state directory's ``secrets`` is replaced by the file's name. Raises OSError.
    """
    change = difflib.unified_diff(
        json_bytes(dict(before)).decode().splitlines(),
        json_bytes(dict(after)).decode().splitlines(),
        "what serves",
        "what failed",
        lineterm="",
    )
    sections = {"what happened": f"{entry}\n{reason}", **evidence, "settings": "\n".join(change) or "(no difference)"}
    text = "".join(f"== {title} ==\n{body.rstrip()}\n\n" for title, body in sections.items())
    make_directory(state.capsules, 0o700)
    path = state.capsules / f"{entry.number:06}-{entry.release}.txt"
    write_atomically(path, redacted(state, text).encode(), 0o600)
    for old in sorted(state.capsules.glob("*.txt"))[:-CAPSULES_KEPT]:
        old.unlink()
    return path


def record_failure(
    failure: Mapping[str, str] | None,
    image: Mapping[str, Any],
    reason: str,
    evidence: Mapping[str, str],
    settings: Mapping[str, Any],
) -> str:
    """Record a release that failed before it could start, in the ledger and a capsule: the message to fail with.

    ``failure`` is what FAILURE_OPTION gave; without it nothing is recorded. ``image`` has the ``identity`` and, once it
    is known, the ``description`` of the release. The message is ``reason`` without secrets, and the capsule's path.
    """
    if not failure:
        return reason
    state = State(Path(failure["state_directory"]))
    schema = image.get("description", {}).get("schema", {})
    try:
        with exclusively(state.run):
            before = state.ledger()
            ledger, entry = before.add(
                release=image["identity"],
                image=image["identity"],
                config="",
                schema_required=schema.get("required", ""),
                schema_tolerates=schema.get("oldest_tolerated", ""),
                version=image.get("description", {}).get("version", ""),
                by=failure["by"],
                why="deploy",
                outcome="failed",
                reason=redacted(state, first_line(reason)),
            )
            state.write_ledger(ledger)
            serving = {"what serves": str(before.current() or "nothing")}
            path = write_capsule(state, entry, reason, {**evidence, **serving}, {}, settings)
    except (OSError, ValueError) as error:
        return f"{redacted(state, reason)}\nno evidence could be written: {error}"
    return f"{redacted(state, reason)}\nevidence: {path}"


def first_line(text: str) -> str:
    """The first line of a message, for the ledger."""
    return next(iter(text.splitlines()), "")


def redacted(state: State, text: str) -> str:
    """``text`` without the content, or a line of the content, of any secret file, plain or as programs quote it."""
    found: dict[str, str] = {}
    files = [path for path in (state.root / "secrets").rglob("[!.]*") if path.is_file()]
    for path in files:
        for secret in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            if len(secret) >= SHORTEST_SECRET:
                quoted = (json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret), quote(secret, safe=""))
                found |= dict.fromkeys((secret, *quoted), f"[{path.name}]")
    # The longest first: one secret may begin with another.
    for form in sorted(found, key=len, reverse=True):
        text = text.replace(form, found[form])
    return text
