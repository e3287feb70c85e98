# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module in a fork of the controller does and says what it does and says when it is sent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.tests.helpers import (
    ACCOUNT,
    COLLECTION,
    OWNER,
    free_port,
    lock_options,
    run_ansible,
)

HERE = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
SENT, FORKED = "Using module file", "in a fork of the controller"


def tell(
    place: Path, task: dict[str, Any], variables: dict[str, Any], *arguments: str, times: int = 1
) -> tuple[str, str]:
    """What a run says of one task, done so often, without times and places; and how its module was run."""
    tasks = [{"name": "task", "ignore_errors": True, **task}] * times
    ran = run_ansible(place, {"vars": variables, "tasks": tasks}, "-vvv", *arguments)
    ways = [way for way in (SENT, FORKED) if way in ran.stdout]
    assert len(ways) == 1, ran.stdout
    assert ran.stdout.count("TASK [task]") == times, ran.stdout
    body = ran.stdout.partition("TASK [task]")[2]
    hidden = r"^(<here>|task path|redirecting|Running|Using|Read|Origin).*\n|ansible-(?:tmp|local)[\w./-]*"
    return re.sub(hidden, "", body, flags=re.MULTILINE), ways[0]


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"given": {"one": "1st"}, "generated": []}, ["--check", "--diff"]),
        ({"given": {"one": "1st"}, "generated": []}, ["--diff"]),
        ({"nonsense": True}, []),
    ],
)
def test_both_ways_say_and_do_the_same(tmp_path: Path, given: dict[str, Any], arguments: list[str]) -> None:
    told = {}
    for way, variables in ((SENT, {}), (FORKED, HERE)):
        place = tmp_path / way.replace(" ", "")
        place.mkdir()
        task = {"whitestar.deploy.host_secrets": {"directory": "secrets", **given}}
        said, how = tell(place, task, variables, *arguments, times=2)
        assert how == way
        kept = {file.name: file.read_text() for file in place.glob("secrets/*")}
        told[way] = said, kept
    assert told[SENT] == told[FORKED]


def test_a_module_s_warning_is_told(place: Path) -> None:
    state = place / "state"
    task = {"whitestar.deploy.host_lock": lock_options(state, port=free_port(), account=ACCOUNT)}
    for variables in ({}, HERE):
        state.mkdir(exist_ok=True)
        (state / "lock.json").write_text(json.dumps(OWNER | {"host": "elsewhere", "since": 0.0, "until": 1.0}))
        said, _ = tell(place, task, variables)
        assert "[WARNING]: took the deploy lock over from u@elsewhere (process 1, since " in said


def test_what_a_fork_cannot_give_is_sent(tmp_path: Path) -> None:
    here: dict[str, Any] = {"vars": HERE}
    asked: list[dict[str, Any]] = [
        here | {"environment": {"A": "b"}},
        here | {"become": True},
        here | {"async": 30, "poll": 1},
        {},
        {"vars": {"ansible_python_interpreter": "/usr/bin/env python3"}},
    ]
    module = {"whitestar.deploy.host_secrets": {"directory": str(tmp_path / "secrets")}, "ignore_errors": True}
    said = run_ansible(tmp_path, {"tasks": [module | task for task in asked]}, "-vvv").stdout
    told = said.split("TASK [")[1:]
    assert len(told) == len(asked)
    assert all(SENT in one for one in told), said
    assert FORKED not in said


@pytest.mark.parametrize("plugin", ["validate_inputs", "forked"])
def test_what_workers_import_is_there_before_they_are_forked(plugin: str) -> None:
    """In a process that has loaded nothing but the action plugin, as the one that forks them has."""
    package = "ansible_collections.whitestar.deploy.plugins"
    told = f"import sys; import {package}.action.{plugin}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", told],
        env=os.environ | {"PYTHONPATH": str(COLLECTION.parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    files = [
        path for kind in ("filter", "lookup", "module_utils") for path in COLLECTION.glob(f"plugins/{kind}/**/*.py")
    ]
    found = [".".join(path.relative_to(COLLECTION).with_suffix("").parts) for path in files if path.stem != "__init__"]
    assert "ansible.plugins.filter.core_" in done.stdout, "Ansible's own filters"
    assert len(found) > 60
    loaded = done.stdout.split()
    assert [name for name in found if f"{package.removesuffix('.plugins')}.{name}" not in loaded] == []
