"""What a run of the suite took: for each step, for the slowest tests, and along the path that nothing could shorten."""

from __future__ import annotations

import json
import os
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.suite import Outcome

SLOWEST = 20
LOOK_SECONDS = 0.1
# Places in /proc/PID/stat after the name: user and system time, and both of children that were waited for (proc(5)).
CPU_FIELDS = slice(11, 15)


def cpu_seconds_of(process: subprocess.Popen[bytes], limit: float) -> float:
    """Wait for a process to end; the processor time of it and of those that it has waited for, in seconds.

    Nothing where somebody else waits for it meanwhile. Raises subprocess.TimeoutExpired when it has not ended after
    ``limit`` seconds.
    """
    deadline = time.monotonic() + limit
    # It is left to be waited for: until then the kernel keeps what it took.
    try:
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(process.args, limit)
            time.sleep(LOOK_SECONDS)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except (ChildProcessError, FileNotFoundError):  # who ended it has waited for it as well
        return 0.0
    return sum(map(int, fields[CPU_FIELDS])) / os.sysconf("SC_CLK_TCK")


def processor_ticks() -> tuple[int, int]:
    """What all processors of the machine have done since it started, in ticks: work, and all (proc_stat(5))."""
    try:
        spent = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except FileNotFoundError:  # not Linux
        return 0, 0
    idle = spent[3] + spent[4]  # with what was waited for
    return sum(spent) - idle, sum(spent)


# When the suite began, which imports this first.
BEGAN = processor_ticks()


def busy_share() -> float:
    """The share of the machine's processors that were at work since the suite began, whoever had them work: 0 to 1."""
    (work, every), (work_before, every_before) = processor_ticks(), BEGAN
    return (work - work_before) / max(1, every - every_before)


def slowest_tests(reports: Iterable[Path], number: int = SLOWEST) -> list[dict[str, Any]]:
    """The slowest tests of these JUnit reports, whose names are those of steps: step, test and seconds."""
    found = [
        {
            "step": report.stem,
            "test": f"{case.get('classname')}::{case.get('name')}",
            "seconds": float(case.get("time", 0)),
        }
        for report in reports
        if report.is_file()
        for case in ET.parse(report).iter("testcase")
    ]
    return sorted(found, key=lambda entry: -float(str(entry["seconds"])))[:number]


def critical_path(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The steps that the last one to end had waited for, and those that these had waited for, in order.

    A step waits for the one before it in its lane, or for one that must come first, whichever ended later.
    """
    path: list[Outcome] = []
    left = list(outcomes)
    while left:
        last = max(left, key=_ended)
        path.insert(0, last)
        left = [outcome for outcome in left if outcome is not last and _ended(outcome) <= last.began]
    return path


def _ended(outcome: Outcome) -> float:
    return outcome.began + outcome.seconds


def recorded(outcomes: Sequence[Outcome], seconds: float, reports: Path) -> dict[str, Any]:
    """What times.json holds; times in seconds, ``began`` since the beginning of the suite.

    ``outcomes`` has the word, the counts and the reasons of each step, one that was left out too.
    """
    entries = {
        outcome.step.name: {
            "lane": outcome.lane,
            "began": round(outcome.began, 1),
            "seconds": round(outcome.seconds, 1),
            "cpu_seconds": round(outcome.cpu_seconds, 1),
        }
        for outcome in outcomes
        if outcome.seconds
    }
    return {
        "seconds": round(seconds, 1),
        "processors_busy": round(busy_share(), 3),
        "steps": entries,
        "outcomes": {
            outcome.step.name: {
                "word": outcome.word,
                "passed": outcome.passed,
                "failed": outcome.failed,
                "skipped": outcome.skipped,
                "reasons": dict(outcome.reasons),
            }
            for outcome in outcomes
        },
        "critical_path": [outcome.step.name for outcome in critical_path(outcomes)],
        "slowest_tests": slowest_tests(reports / f"{outcome.step.name}.xml" for outcome in outcomes),
    }


def write(record: dict[str, Any], reports: Path) -> None:
    """Write times.json."""
    (reports / "times.json").write_text(json.dumps(record, indent=2) + "\n")


def told(record: dict[str, Any]) -> list[str]:
    """Lines for the summary: how busy lanes and processors were, and the critical path with seconds of each step."""
    steps: dict[str, dict[str, float]] = record["steps"]
    lines = []
    for lane in sorted({step["lane"] for step in steps.values()}):
        busy = sum(step["seconds"] for step in steps.values() if step["lane"] == lane)
        lines.append(f"lane {int(lane) + 1}: {busy:.0f} s of {record['seconds']:.0f} s")
    lines.append(f"processors: {record['processors_busy']:.0%} busy")
    path = [f"{name} {steps[name]['seconds']:.0f} s" for name in record["critical_path"] if name in steps]
    return [*lines, f"critical path: {' → '.join(path)}"]
