"""Asks OSV for known vulnerabilities of every locked Python package and Go module, and writes them as SARIF.

Called by ``make audit``. requirements/exceptions.yml names those that pass for a time. An empty answer and no answer
are two things: where OSV cannot be reached the outcome is "not scanned", no failure unless ``--required`` is given.
The exit status is 1 when there is a vulnerability without an exception, or an exception that has run out. ``OSV_API``
names another place that answers as OSV does.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import os
import re
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = "collections/ansible_collections/whitestar/deploy"
SARIF = ROOT / ".reports/sarif/osv.sarif"
EXCEPTIONS = ROOT / "requirements/exceptions.yml"
API = os.environ.get("OSV_API", "https://api.osv.dev")
SECONDS = 30
# OSV's own limit.
BATCH = 1000
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*])?==([^\s;\\]+)", re.MULTILINE)
MODULE = re.compile(r"^\s*(?:require )?([\w.-]+\.[\w./-]+) v([^\s/]+)", re.MULTILINE)
LONGEST_DAYS = 90


@dataclass(frozen=True)
class Package:
    """A package as a lock pins it."""

    ecosystem: str
    name: str
    version: str
    lock: str

    def query(self) -> dict[str, Any]:
        """How OSV is asked for it."""
        return {"package": {"ecosystem": self.ecosystem, "name": self.name}, "version": self.version}


def locks(root: Path) -> Iterator[tuple[str, re.Pattern[str], Path]]:
    """Each lock of the checkout with its ecosystem and how a line of it pins."""
    for place in ("requirements", "service", "service/image", "roles/*/files/*", f"{COLLECTION}/roles/*/files"):
        for path in sorted(root.glob(f"{place}/*.txt")):
            yield "PyPI", PIN, path
    for place in ("requirements/programs", "roles/*/files"):
        for path in sorted(root.glob(f"{place}/*/go.mod")):
            yield "Go", MODULE, path


def packages(root: Path = ROOT) -> list[Package]:
    """All that is locked, each version once."""
    found: dict[tuple[str, str, str], Package] = {}
    for ecosystem, pin, path in locks(root):
        for name, version in pin.findall(path.read_text()):
            found.setdefault((ecosystem, name, version), Package(ecosystem, name, version, str(path.relative_to(root))))
    return list(found.values())


def ask(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """An answer of OSV. Raises OSError, or ValueError for one that cannot be read."""
    request = urllib.request.Request(f"{API}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        said: dict[str, Any] = json.load(answer)
    return said


def vulnerabilities(wanted: list[Package]) -> list[tuple[Package, str]]:
    """What OSV knows of these. Raises OSError or ValueError when it does not answer for each of them."""
    found = []
    for start in range(0, len(wanted), BATCH):
        some = wanted[start : start + BATCH]
        answers = ask("/v1/querybatch", {"queries": [package.query() for package in some]}).get("results", [])
        if len(answers) != len(some):
            raise ValueError(f"{len(answers)} answers to {len(some)} questions")
        for package, answer in zip(some, answers, strict=True):
            found += [(package, known["id"]) for known in answer.get("vulns", [])]
    return found


def exceptions(path: Path, today: dt.date) -> tuple[set[tuple[str, str]], list[str]]:
    """Identifiers with their packages that pass today, and what is wrong with the file."""
    passing, wrong = set(), []
    for entry in yaml.safe_load(path.read_text())["exceptions"]:
        name = f"{entry.get('id')} of {entry.get('package')}"
        until = entry.get("until")
        if not entry.get("reason") or not isinstance(until, dt.date):
            wrong.append(f"{name}: reason and until are required")
        elif until < today:
            wrong.append(f"{name}: the exception ran out on {until}")
        elif until > today + dt.timedelta(days=LONGEST_DAYS):
            wrong.append(f"{name}: until {until} is more than {LONGEST_DAYS} days ahead")
        else:
            passing.add((entry["id"], entry["package"]))
    return passing, wrong


def sarif(found: list[tuple[Package, str]], why_not: str = "") -> dict[str, Any]:
    """The findings as SARIF 2.1.0; ``why_not`` says why nothing was scanned."""
    results = [
        {
            "ruleId": identifier,
            "message": {"text": f"{package.name} {package.version}: {identifier}"},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": package.lock}}}],
        }
        for package, identifier in found
    ]
    told = [{"level": "error", "message": {"text": why_not}}] if why_not else []
    run = {
        "tool": {"driver": {"name": "osv", "informationUri": "https://osv.dev"}},
        "invocations": [{"executionSuccessful": not why_not, "toolExecutionNotifications": told}],
        "results": results,
    }
    return {"version": "2.1.0", "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "runs": [run]}


def write(found: list[tuple[Package, str]], why_not: str = "") -> None:
    """Keep the findings for code scanning and the job's summary."""
    SARIF.parent.mkdir(parents=True, exist_ok=True)
    SARIF.write_text(json.dumps(sarif(found, why_not), indent=2) + "\n")


def main(arguments: list[str]) -> int:
    """Prints each vulnerability, or that nothing was scanned and why."""
    passing, wrong = exceptions(EXCEPTIONS, dt.datetime.now(dt.UTC).date())
    for text in wrong:
        print(f"{EXCEPTIONS.name}: {text}", file=sys.stderr)
    wanted = packages()
    try:
        found = vulnerabilities(wanted)
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"not scanned: OSV gave no answer ({error})", file=sys.stderr)
        write([], f"not scanned: {error}")
        return int(bool(wrong) or "--required" in arguments)
    left = [(package, name) for package, name in found if (name, package.name) not in passing]
    write(left)
    for package, name in left:
        print(f"{package.lock}: {package.name} {package.version}: {name}")
    print(f"{len(wanted)} packages scanned, {len(left)} vulnerabilities, {len(found) - len(left)} with an exception")
    return int(bool(wrong or left))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
