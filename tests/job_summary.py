"""What the last run did, as Markdown for the page of a job: outcomes, times, what was left out, findings.

Called by ``make summary``. It prints the summary, and appends it to the file that ``GITHUB_STEP_SUMMARY`` names.
"""

from __future__ import annotations

import json
import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bin.findings import findings, not_scanned
from tests.suite import REPORTS

SHOWN = 20
MESSAGE_LENGTH = 300
SIGNS = {"passed": "✅", "FAILED": "❌", "skipped": "⏭️"}


def cell(text: object) -> str:
    """A text that stands in one cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table of Markdown, and an empty line."""
    lines: list[Sequence[object]] = [heads, ["---"] * len(heads), *rows]
    return [*(f"| {' | '.join(map(cell, line))} |" for line in lines), ""]


def steps(record: dict[str, Any]) -> Iterator[str]:
    """What became of each step, why tests were left out, and what took longest."""
    outcomes: dict[str, dict[str, Any]] = record["outcomes"]
    sums = [sum(outcome[key] for outcome in outcomes.values()) for key in ("passed", "failed", "skipped")]
    yield f"## Tests: {sums[0]} passed, {sums[1]} failed, {sums[2]} skipped in {record['seconds']:.0f} s\n"
    rows = []
    for name, outcome in outcomes.items():
        took = record["steps"].get(name, {"seconds": 0, "cpu_seconds": 0})
        times = [f"{took['seconds']:.0f} s", f"{took['cpu_seconds']:.0f} s"]
        counts = [outcome[key] for key in ("passed", "failed", "skipped")]
        rows.append([f"{SIGNS[outcome['word']]} {name}", *times, *counts])
    yield from table(["step", "time", "processor", "passed", "failed", "skipped"], rows)
    left_out = [[name, n, why] for name, outcome in outcomes.items() for why, n in outcome["reasons"].items()]
    if left_out:
        yield "### Left out\n"
        yield from table(["step", "tests", "why"], left_out)
    yield f"Critical path: {' → '.join(record['critical_path'])}\n"


def failures() -> Iterator[str]:
    """The messages of failed tests."""
    rows: list[list[object]] = []
    for report in sorted(REPORTS.glob("*.xml")):
        for case in ET.parse(report).iter("testcase"):
            for problem in (*case.iter("failure"), *case.iter("error")):
                message = " ".join(problem.get("message", "").split())[:MESSAGE_LENGTH]
                rows.append([report.stem, f"`{case.get('name')}`", message])
    if rows:
        yield "### Failed\n"
        yield from table(["step", "test", "message"], rows[:SHOWN])


def scans() -> Iterator[str]:
    """What linters and scanners found."""
    rows: list[list[object]] = []
    for path in sorted((REPORTS / "sarif").glob("*.sarif")):
        found, why_not = findings(path), not_scanned(path)
        rows.append(
            [path.stem, "not scanned" if why_not else len(found), why_not or "<br>".join(found[:SHOWN]) or "none"]
        )
    if rows:
        yield "## Findings\n"
        yield from table(["tool", "number", "what and where"], rows)


def summary() -> str:
    """All of it; says so when nothing was run."""
    times = REPORTS / "times.json"
    lines = [*steps(json.loads(times.read_text())), *failures()] if times.is_file() else []
    lines += scans()
    return "\n".join(lines or ["No step has run."]) + "\n"


def main() -> int:
    """Prints the summary and hands it to the runner of workflows."""
    text = summary()
    print(text, end="")
    if name := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(name).open("a") as file:
            file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
