# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One workload is the same release everywhere: a process, a Compose service and a Deployment say the same of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.filter.workload import workload
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.definition import without_proxies
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import api_part
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import release_objects
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import command_line
from ansible_collections.whitestar.deploy.tests.helpers import SERVICE

SETTINGS: dict[str, Any] = {
    "image": {
        "reference": "registry.example.org/titanic@sha256:" + "3f" * 32,
        "identity": "3f2a9c0d1b7e",
        "description": {"version": "1.0.0", "schema": {"required": "0003", "oldest_tolerated": "0002"}},
    },
    "command": ["titanic-api", "serve"],
    "port": 8000,
    "replicas": 1,
    "environment": {"TITANIC_WORKERS": 2, "TITANIC_WRITE_TOKENS_FILE": "/run/titanic/write_tokens"},
    "database": {"host": "database", "port": 5432, "name": "titanic", "user": "titanic_app"}
    | {"password_file": "/run/titanic/database_app_password"},
    "secret_files": {
        "database_password": "/run/titanic/database_app_password",
        "write_tokens": "/run/titanic/write_tokens",
    },
    "resources": {"memory": "256Mi", "cpu": "0.5"},
    "user": 10001,
    "probes": SERVICE["probes"],
    "promises": SERVICE["promises"],
}
# What each target adds of its own: where to listen, where to measure, how it is drained.
OWN = {"TITANIC_BIND", "TITANIC_METRICS_DIRECTORY", "TITANIC_DRAIN_FILE", "TITANIC_KEEPALIVE_SECONDS"}


@pytest.fixture
def service(release: dict[str, Any]) -> dict[str, Any]:
    """The release as a Compose service."""
    part = api_part(release, "blue", State(Path("/state")), 25)
    found: dict[str, Any] = part["services"]["api-blue"]
    return found


@pytest.fixture
def objects(release: dict[str, Any]) -> list[dict[str, Any]]:
    """The release as objects of Kubernetes."""
    return release_objects(release, 30, 25)


@pytest.fixture
def release() -> dict[str, Any]:
    """The workload."""
    return workload(copy.deepcopy(SETTINGS))


def shared(environment: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in environment.items() if name not in {*OWN, *without_proxies({})}}


def test_image_command_and_settings_are_the_same(
    release: dict[str, Any], service: dict[str, Any], objects: list[dict[str, Any]]
) -> None:
    settings, deployment = objects
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert service["image"] == container["image"] == release["image"]
    assert service["command"] == container["command"] == release["command"]
    process = command_line("/state/images/3f2a9c0d1b7e", release["command"])
    assert [Path(process[0]).name, *process[1:]] == release["command"]
    assert shared(service["environment"]) == shared(settings["data"]) == shared(release["environment"])
    assert settings["data"]["TITANIC_RELEASE"] == release["release"]
    assert service["environment"]["TITANIC_BIND"] == settings["data"]["TITANIC_BIND"] == "0.0.0.0:8000"


def test_rights_and_limits_are_the_same(service: dict[str, Any], objects: list[dict[str, Any]]) -> None:
    pod = objects[1]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    security = pod["securityContext"] | container["securityContext"]
    assert service["user"] == f"{security['runAsUser']}:{security['runAsGroup']}"
    assert service["read_only"] is security["readOnlyRootFilesystem"] is True
    assert service["cap_drop"] == security["capabilities"]["drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert security["allowPrivilegeEscalation"] is False
    limits = container["resources"]["limits"]
    assert (service["mem_limit"], service["cpus"]) == (limits["memory"].lower().removesuffix("i"), 0.5)
    assert limits["cpu"] == "500m"


def test_secrets_are_in_the_same_places(
    release: dict[str, Any], service: dict[str, Any], objects: list[dict[str, Any]]
) -> None:
    pod = objects[1]["spec"]["template"]["spec"]
    (directory,) = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "secrets"]
    wanted = set(release["secret_files"].values())
    assert {secret["target"] for secret in service["secrets"]} == wanted
    # A Secret's keys are the names of the files; see roles/titanic_secrets.
    assert {str(Path(path).parent) for path in wanted} == {directory}
