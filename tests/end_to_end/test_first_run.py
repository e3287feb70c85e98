"""The commands of the README on a fresh clone: 887 passengers are served, a second run changes nothing, all goes away.

As root the clone is given to an unprivileged account, since "no root" is a promise too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deployment import RUN_SECONDS, Deployment, workplace

# What is promised on a quiet machine with two cores (120 s with a cold package cache, 10 s again) and several times as
# much, since the suite runs another step beside this one, on a machine that others may use: bounds against what hangs.
FIRST_SECONDS = 500
SECOND_SECONDS = 120
# A screen, as narrow as a terminal is by default and as wide as one that somebody has made wider.
SCREEN_LINES = 24
SCREEN_COLUMNS = (80, 120)
ACCOUNT = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]

Make = Callable[..., subprocess.CompletedProcess[str]]


def unprivileged() -> list[str]:
    """How to drop root, empty when we are not root or the account has no Python that it may start."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return []
    probe = "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"
    usable = subprocess.run([*ACCOUNT, "/usr/bin/python3", "-c", probe], capture_output=True).returncode == 0
    return ACCOUNT if usable else []


@pytest.fixture(scope="module")
def clone(root: Path, files: list[Path]) -> Iterator[Deployment]:
    """What a clone would hold, with a home directory, and so a package cache, of its own."""
    with workplace() as place:
        for path in files:
            (place / "clone" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / path, place / "clone" / path)
        deployment = Deployment(place, place / "clone", place / "clone/inventories/local")
        deployment.variables.chmod(0o644)
        if unprivileged():
            subprocess.run(["chown", "-R", "nobody:nogroup", place], check=True)
        yield deployment


def summary_file(clone: Deployment) -> Path:
    """Where a run leaves its summary for programs."""
    return clone.place / "summary.json"


@pytest.fixture(scope="module")
def make(clone: Deployment) -> Iterator[Make]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "UV_", "LANG"))}
    path = "/usr/local/bin:/usr/bin:/bin" if unprivileged() else os.environ["PATH"]
    environment = {**kept, "HOME": str(clone.place), "PATH": path, "TITANIC_SUMMARY_FILE": str(summary_file(clone))}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*unprivileged(), "make", *arguments, f"ARGS=-e @{clone.variables}"]
        return subprocess.run(
            command, cwd=clone.project, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS
        )

    yield run
    if clone.state.exists():
        run("down")


def assert_one_screen(output: str) -> None:
    """What a run prints that changes nothing fits on a screen, lines that are too long for it wrapped."""
    for columns in SCREEN_COLUMNS:
        rows = sum(max(1, -(-len(line) // columns)) for line in output.splitlines())
        assert rows <= SCREEN_LINES, f"{rows} rows of {columns} columns:\n{output}"


@pytest.mark.slow
def test_from_a_clone_to_887_passengers_and_back(clone: Deployment, make: Make) -> None:
    started = time.monotonic()
    first = make("up")
    assert first.returncode == 0, first.stdout + first.stderr
    assert time.monotonic() - started < FIRST_SECONDS
    status, people = clone.ask("GET", "/people")
    assert (status, len(people)) == (200, 887)
    assert clone.ask("GET", "/")[1]["message"] == "Welcome to the Titanic API"
    assert f"http://127.0.0.1:{clone.port}/" in first.stdout, "the summary says where it is"

    started = time.monotonic()
    second = make("up")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "changed=0 " in second.stdout
    assert time.monotonic() - started < SECOND_SECONDS
    assert_one_screen(second.stdout + second.stderr)
    summary = json.loads(summary_file(clone).read_text())
    (host,) = summary["hosts"].values()
    assert (summary["failed"], host["changed"], host["errors"]) == (False, 0, [])
    assert {stage["state"] for stage in host["stages"]} == {"ok"}
    assert host["release"] == clone.ask("GET", "/version")[1]["release"]
    assert host["url"] == f"http://127.0.0.1:{clone.port}"

    shown = make("status")
    assert shown.returncode == 0
    assert "887" in shown.stdout

    down = make("down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert not clone.state.exists()
    assert clone.processes() == []


def test_help_is_what_make_says_by_default(root: Path) -> None:
    shown = subprocess.run(["make"], cwd=root, capture_output=True, text=True, check=True).stdout
    for target in ("up", "status", "down", "test", "test-fast", "test-full", "bench", "docs", "lock", "clean"):
        assert f"make {target} " in shown
