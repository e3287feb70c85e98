# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of a Docker engine share: a service of a Compose project is kept as roles keep it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.whitestar.deploy.tests.helpers import (
    COLLECTION,
    RUN_SECONDS,
    Result,
    module_arguments,
    module_environment,
    read_result,
    run_module,
)

# What a service may need, in the words of a plan.
VERBS = ("write", "start", "reload", "restart")
COMPOSE = "community.docker.docker_compose_v2"
TASKS = COLLECTION / "roles/titanic_common/tasks/apply_service.yml"


def keep_service(root: Path, engine: dict[str, Any], service: dict[str, Any], *, check: bool = False) -> Result:
    """Have a service of the project below ``root``, as roles do; what the plan said, or what failed after it."""
    given = {"state_directory": str(root), "engine": engine, "service": service}
    planned = run_module("compose_service", given, check=check)
    if planned.failed:
        return planned
    for call in planned["compose"]:
        done = run_compose(root, engine, call)
        if done.failed:
            return done
    if planned.changed and not check:
        ready = run_module("compose_service", given | {"state": "ready"})
        if ready.failed:
            return ready
    return planned


def needed(planned: Result) -> list[str]:
    """What a plan says that its service needs."""
    return [verb for step in planned["steps"] if (verb := step.split()[0]) in VERBS]


def run_compose(root: Path, engine: dict[str, Any], call: dict[str, Any]) -> Result:
    """Run docker_compose_v2 for a call of the plan, in a process of its own, since it is told by its environment."""
    task, environment = compose_task()
    task |= {"docker_cli": engine["program"], "docker_host": f"unix://{engine['socket']}"}
    task |= {"project_src": f"{root}/project", "project_name": engine["project"]}
    given = json.dumps({"ANSIBLE_MODULE_ARGS": module_arguments(COMPOSE, task | call, check=False)})
    done = subprocess.run(
        [sys.executable, "-m", "ansible_collections.community.docker.plugins.modules.docker_compose_v2"],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        env=module_environment() | environment | {"DOCKER_CONFIG": engine.get("configuration", "")},
        timeout=RUN_SECONDS,
    )
    return read_result(done.stdout, done.stderr)


@cache
def _role_files() -> tuple[dict[str, Any], dict[str, str]]:
    (task,) = (each for each in yaml.safe_load(TASKS.read_text()) if COMPOSE in each)
    variables = yaml.safe_load((COLLECTION / "roles/titanic_common/vars/main.yml").read_text())
    return task[COMPOSE], variables["__titanic_common_compose_environment"]


def compose_task() -> tuple[dict[str, Any], dict[str, str]]:
    """What roles tell docker_compose_v2 always, and in what environment."""
    arguments, environment = _role_files()
    return {key: value for key, value in arguments.items() if "{{" not in str(value)}, dict(environment)
