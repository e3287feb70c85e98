# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The capsule: one file with the evidence of a failed release, secrets taken out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.files import (
    json_bytes,
    make_directory,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.ledger import Entry
from ansible_collections.whitestar.deploy.plugins.module_utils.state import State

CAPSULES_KEPT = 10
SHORTEST_SECRET = 4  # a shorter one would blacken ordinary words


def write_capsule(
    state: State,
    entry: Entry,
    reason: str,
    evidence: Mapping[str, str],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Path:
    """Write the evidence of the failed ``entry`` and return where; ``before`` and ``after`` are workloads.

    The content of every file in the state directory's ``secrets`` is replaced by the file's name. Raises OSError.
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


def redacted(state: State, text: str) -> str:
    """``text`` without the content, or a line of the content, of any secret file."""
    for path in sorted((state.root / "secrets").glob("[!.]*")):
        for secret in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            if len(secret) >= SHORTEST_SECRET:
                text = text.replace(secret, f"[{path.name}]")
    return text
