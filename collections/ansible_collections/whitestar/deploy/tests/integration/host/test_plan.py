# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan that one run of Ansible has written is compared by the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.tests.helpers import UNCHANGED_STAGES, run_ansible


def test_it_is_written_for_this_run_and_compared_by_the_next(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"format": 1, "run": "another", "targets": {"here": {}, "there": {}}}')
    note = {"name": "n", "whitestar.deploy.plan": {"state": "noted"}, "register": "noted"}
    there = {"the secrets": "a"}
    write = {
        "name": "w",
        "whitestar.deploy.plan": {
            "state": "written",
            "file": str(plan),
            "settings": "{{ noted.settings }}",
            "reality": there,
            "stages": UNCHANGED_STAGES,
            "run": {"pid": 1},
        },
    }
    variables = {"titanic_api_port": 5001, "titanic_api_write_tokens": ["hunter2-secret"]}
    done = run_ansible(tmp_path, {"vars": variables, "tasks": [note, write]}, "--check")
    assert done.returncode == 0, done.stdout
    assert list(json.loads(plan.read_text())["targets"]) == ["here"]
    assert "hunter2-secret" not in plan.read_text()

    def compare(found: dict[str, str], **changed: Any) -> tuple[int, str]:
        task = {"name": "c", "whitestar.deploy.plan": {"state": "compared", "file": str(plan), "reality": found}}
        done = run_ansible(tmp_path, {"vars": variables | changed, "tasks": [task]})
        return done.returncode, " ".join(done.stdout.split())

    assert compare(there)[0] == 0
    status, output = compare({"the secrets": "b"}, titanic_api_port=5002)
    assert status != 0
    assert "titanic_api_port, the secrets. Look at the changes and write a new plan." in output
    document = json.loads(plan.read_text())
    plan.write_text(json.dumps(document | {"targets": {"there": document["targets"]["here"]}}))
    assert "the plan has no part for here" in compare(there)[1]
