# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The failure report: one file with the evidence of a failed release, secrets taken out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import json_bytes
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Entry, Records
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import UNTIL

OUTPUT_FOLLOWS = "; its last output:"
REASON_LENGTH = 300
ERRORS = ("error", "critical")
SHORTEST_SECRET = 4  # a shorter one would blacken ordinary words


def write_failure_report(
    records: Records,
    entry: Entry,
    reason: str,
    evidence: Mapping[str, str],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> str:
    """Write the evidence of the failed ``entry`` and return where; ``before`` and ``after`` are workloads.

    Every secret of the target is replaced by its name. Raises what ``records`` does.
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
    return records.store_failure_report(f"{entry.number:06}-{entry.release}", redacted(records, text))


def record_failure(
    records_of: Callable[[Mapping[str, Any]], AbstractContextManager[Records]],
    failure: Mapping[str, Any] | None,
    image: Mapping[str, Any],
    reason: str,
    evidence: Mapping[str, str],
    settings: Mapping[str, Any],
) -> str:
    """Record a release that failed before it could start, in the ledger and a failure report: the message to fail with.

    ``failure`` is a module's option, in which ``records_of`` finds where the target keeps its records; without it
    nothing is recorded. ``image`` has the ``identity`` and, once it is known, the ``description`` of the release. The
    message is ``reason`` without secrets, and where the failure report is.
    """
    if not failure:
        return reason
    schema = image.get("description", {}).get("schema", {})
    told = reason
    try:
        with records_of(failure) as records, records.exclusively():
            told = redacted(records, reason)
            before = records.ledger()
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
                reason=reason_of(told),
            )
            records.write_ledger(ledger)
            serving = {"what serves": str(before.current() or "nothing")}
            where = write_failure_report(records, entry, told, {**evidence, **serving}, {}, settings)
    except (OSError, ValueError, RuntimeError) as error:  # a cluster that does not answer raises the last
        return f"{told}\nno evidence could be written: {error}"
    return f"{told}\nevidence: {where}"


def reason_of(text: str) -> str:
    """Why a release failed, in one line for the ledger: a message's first, with the last one of the output below it."""
    first, *output = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    if not first.endswith(OUTPUT_FOLLOWS):
        return first
    return ": ".join([first.removesuffix(OUTPUT_FOLLOWS), *output[-1:]])[:REASON_LENGTH]


def readable(output: str) -> str:
    """A program's output for a message: of log lines in JSON level and text, and of an exception its last line.

    What is said again is left out; where errors are logged, so are lines of lower levels. Other lines stay as they are.
    """
    found = [_log_line(line) for line in output.splitlines()]
    if any(level in ERRORS for level, _ in found):
        found = [(level, text) for level, text in found if level in {"", *ERRORS}]
    return "\n".join(dict.fromkeys(text for _, text in found))


def _log_line(line: str) -> tuple[str, str]:
    """The level of a log line in JSON, empty for another line, and what is shown of it."""
    try:
        entry = json.loads(line) if line.startswith("{") else None
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or not isinstance(entry.get("message"), str):
        return "", line
    level, exception = str(entry.get("level", "")), str(entry.get("exception") or "").strip()
    why = f": {exception.splitlines()[-1]}" if exception else ""
    return level, f"{level or 'log'}: {entry['message']}{why}"


def redacted(records: Records, text: str) -> str:
    """``text`` without any of the target's secrets, or a line of one, plain or as programs quote it."""
    found: dict[str, str] = {}
    for name, content in records.secrets():
        # Of a token that ends at a moment (rotation.UNTIL) the token alone is one too.
        lines = content.split("\n")
        for secret in {*lines, *(line.partition(UNTIL)[0] for line in lines)}:
            if len(secret) >= SHORTEST_SECRET:
                quoted = (json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret), quote(secret, safe=""))
                found |= dict.fromkeys((secret, *quoted), f"[{name}]")
    # The longest first: one secret may begin with another.
    for form in sorted(found, key=len, reverse=True):
        text = text.replace(form, found[form])
    return text
