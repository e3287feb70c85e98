"""Writes what linters and scanners find as SARIF into .reports/sarif, one file each, where code scanning reads it.

Called by ``make findings``. It judges nothing: findings fail the steps of ``make test``. The exit status is 1 when a
tool has written no SARIF, and so has not looked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SARIF = ROOT / ".reports/sarif"
PROGRAMS = "requirements/programs"
# Tool -> directory and command, with OUT in the place of the file; one without it writes to standard output.
OUT = "{out}"
TOOLS: dict[str, tuple[str, list[str]]] = {
    "ruff": (".", ["ruff", "check", "--exit-zero", "--output-format=sarif", f"--output-file={OUT}", "."]),
    "zizmor": (".", ["zizmor", "--offline", "--persona=auditor", "--quiet", "--no-exit-codes", "--format=sarif", "."]),
    "gitleaks": (
        f"{PROGRAMS}/gitleaks",
        [
            *("go", "tool", "gitleaks", "git", "--no-banner", "--redact", "--exit-code=0", "--report-format=sarif"),
            *(
                "--log-opts=--full-history HEAD",
                f"--config={ROOT / '.gitleaks.toml'}",
                f"--report-path={OUT}",
                str(ROOT),
            ),
        ],
    ),
}


def run(name: str, directory: str, command: list[str]) -> Path:
    """Runs a tool; the path of its SARIF, which is not there if the tool could not be run."""
    path = SARIF / f"{name}.sarif"
    path.unlink(missing_ok=True)
    words = [word.replace(OUT, str(path)) for word in command]
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
    try:
        done = subprocess.run(words, cwd=ROOT / directory, env=environment, stdout=subprocess.PIPE)
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return path
    if words == command and done.stdout:
        path.write_bytes(done.stdout)
    return path


def findings(path: Path) -> list[str]:
    """What a SARIF file tells of, each as ``rule file:line``. Raises ValueError when it is no SARIF."""
    log: dict[str, Any] = json.loads(path.read_text())
    if "runs" not in log:
        raise ValueError(f"{path}: no SARIF")
    results = [result for part in log["runs"] for result in part.get("results", [])]
    return [f"{result.get('ruleId', '?')} {place(result)}" for result in results]


def not_scanned(path: Path) -> str:
    """Why the tool of a SARIF file has not looked; empty when it has."""
    invocations = [one for part in json.loads(path.read_text())["runs"] for one in part.get("invocations", [])]
    failed = [one for one in invocations if not one.get("executionSuccessful", True)]
    told = [note["message"]["text"] for one in failed for note in one.get("toolExecutionNotifications", [])]
    return "; ".join(told) or ("it has failed" if failed else "")


def place(result: Mapping[str, Any]) -> str:
    """File and line of a result, ``-`` where it has none."""
    for location in result.get("locations") or []:
        physical = location.get("physicalLocation", {})
        file, line = physical.get("artifactLocation", {}).get("uri"), physical.get("region", {}).get("startLine")
        if file:
            return f"{str(file).removeprefix(f'file://{ROOT}/')}:{line or 1}"
    return "-"


def main(names: list[str]) -> int:
    """Runs the named tools, all where none is named."""
    SARIF.mkdir(parents=True, exist_ok=True)
    status = 0
    for name in names or TOOLS:
        try:
            found = findings(run(name, *TOOLS[name]))
        except (OSError, ValueError) as error:
            print(f"{name}: not scanned ({error})", file=sys.stderr)
            status = 1
            continue
        print(f"{name}: {len(found)} findings")
        print("".join(f"  {text}\n" for text in found), end="")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
