# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of Ansible with bad input is refused at its beginning, with all problems at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.tests.helpers import run_ansible


def play(**variables: Any) -> dict[str, Any]:
    own = {"titanic_provider": "local"} | variables
    return {
        "vars": own,
        "tasks": [
            {"whitestar.deploy.validate_inputs": {"tags": ["image", "database", "api", "rollback"]}, "tags": ["always"]}
        ],
    }


def test_a_good_run_passes(tmp_path: Path) -> None:
    """A value that rests on what a later stage gives back is left to its role."""
    variables = play(titanic_api_port="{{ 5000 + 1 }}", titanic_api_workers="{{ later.workers }}")
    done = run_ansible(tmp_path, variables, "--tags", "api", "--check")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout


def test_all_problems_of_a_run_come_at_once(tmp_path: Path) -> None:
    variables = {
        "titanic_api_prot": 1,
        "titanic_api_workers": "{{ 'ma' ~ 'ny' }}",
        "titanic_provider": "docker",
        "titanic_secrets_values": "hunter2-secret",
    }
    done = run_ansible(tmp_path, play(**variables), "--tags", "rolback", "--skip-tags", "imge")
    assert done.returncode == 2
    assert "Refused before anything was touched" in done.stdout
    for words in ("--tags rolback", "--tags imge", "titanic_api_prot", "titanic_api_workers", "titanic_provider"):
        assert words in done.stdout
    assert "hunter2-secret" not in done.stdout
    assert "Traceback" not in done.stdout


def test_extra_variables_are_looked_at_too(tmp_path: Path) -> None:
    done = run_ansible(tmp_path, play(), "-e", json.dumps({"titanic_api_port": "many"}))
    assert done.returncode == 2
    assert "titanic_api_port" in done.stdout
