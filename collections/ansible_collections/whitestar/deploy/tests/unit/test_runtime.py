# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases are processes or containers, with one interface for both."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.doc_fragments.engine import ModuleDocFragment
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import ComposeBlueGreen, ComposeRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.blue_green import (
    HEALTH_INTERVAL_SECONDS,
    BlueGreen,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.runtime import Runtime, recorded_workload
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import LocalBlueGreen, LocalRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.tests.helpers import COLLECTION, MODULES, make_workload

ENGINE = DockerClient.of(
    {"socket": "/nowhere/docker.sock", "program": "docker", "project": "people", "configuration": None}
)


def test_each_runtime_has_its_colours(state: State) -> None:
    hosts: dict[type[BlueGreen], Runtime] = {
        LocalBlueGreen: LocalRuntime(state),
        ComposeBlueGreen: ComposeRuntime(ENGINE, state),
    }
    for kind, host in hosts.items():
        colours = host.colours(make_workload(state, "a" * 12) | {"replicas": 3}, "", 1, 1)
        assert type(colours) is kind
        assert colours.replicas == 3


def test_what_a_command_lacks_is_told(state: State) -> None:
    image = make_workload(state, "a" * 12)["image"]
    assert LocalRuntime(state).missing(image, ["tiny"]) == ""
    assert LocalRuntime(state).missing(image, ["tony"]) == f"{image}/bin/tony"
    assert ComposeRuntime(ENGINE, state).missing("", ["tiny"]) == "image of the release"


def test_a_record_that_nothing_is_left_of_is_refused(state: State) -> None:
    with pytest.raises(ReleaseError, match="of an unknown entry is recorded, but"):
        recorded_workload(state, LocalRuntime(state), None)


def test_the_reverse_proxy_asks_as_often_as_the_drain_waits_for() -> None:
    text = (COLLECTION / "roles" / "titanic_api" / "templates" / "Caddyfile.j2").read_text()
    assert f"health_interval {HEALTH_INTERVAL_SECONDS * 1000:g}ms" in text


def test_the_documented_engine_is_the_one_that_modules_take() -> None:
    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]["engine"]
    options: Any = DockerClient.OPTION["options"]
    assert {name: option.get("required", False) for name, option in documented["suboptions"].items()} == {
        name: option.get("required", False) for name, option in options.items()
    }
    takers = [path.stem for path in (COLLECTION / "plugins" / "modules").glob("*.py") if uses_an_engine(path)]
    assert "host_release" in takers
    for name in takers:
        text = importlib.import_module(f"{MODULES}.{name}").DOCUMENTATION
        assert "whitestar.deploy.engine" in yaml.safe_load(text)["extends_documentation_fragment"]


def uses_an_engine(path: Path) -> bool:
    return '"engine": DockerClient.OPTION' in path.read_text()
