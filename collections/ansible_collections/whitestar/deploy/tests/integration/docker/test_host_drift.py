# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody changes in containers is found by name and path; secrets by name alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    PROJECT_LABEL,
    SERVICE_LABEL,
    DockerClient,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.tests.helpers import (
    PLANTED_PASSWORD,
    DriftTarget,
    append_line,
    open_directory,
    remove_project,
    tiny_workload,
)

# Processes are started here that outlive what started them.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture(scope="module")
def compose(engine: dict[str, Any], tiny_image: str) -> Iterator[DriftTarget]:
    """A release in containers, of a project of this module's own."""
    place = open_directory()
    state = State(place / "state")
    state.root.mkdir()
    target = DriftTarget(state, engine=engine)
    target.secrets()
    target.release(tiny_workload(tiny_image, "a" * 12, TINY_BEHAVIOUR="good"))
    os.chown(state.root / "secrets" / "password", 10001, 10001)
    yield target
    remove_project(DockerClient.of(engine))
    shutil.rmtree(place)


def docker(*words: str) -> Callable[[DriftTarget], object]:
    """Somebody uses docker; PROJECT stands for the project, BLUE for the container that serves."""

    def use(target: DriftTarget) -> object:
        engine = DockerClient.of(target.options["engine"])
        named = {"PROJECT": engine.project, "BLUE": f"{engine.project}-api-blue-1", "IMAGE": target.workload["image"]}
        given = list(words)
        for word, value in named.items():
            given = [text.replace(word, value) for text in given]
        return engine.run(*given)

    return use


def change_variables(target: DriftTarget) -> None:
    """Somebody edits the project, has its containers made anew, and sets it back."""
    file = target.state.root / "project" / "compose.yaml"
    text = file.read_text()
    file.write_text(text.replace('HTTP_PROXY: ""', f'HTTP_PROXY: "{PLANTED_PASSWORD}"\n      NOTE: "added"'))
    DockerClient.of(target.options["engine"]).run("compose", "up", "--detach", directory=str(file.parent))
    file.write_text(text)


OWN = '"PROJECT_data", "PROJECT_front"'


LABELS = ("--label", f"{PROJECT_LABEL}=PROJECT", "--label", f"{SERVICE_LABEL}=guest")


# Each is done after the others before it: what comes to the list, and what goes.
CONTAINERS: dict[str, tuple[Callable[[DriftTarget], object], list[str], list[str]]] = {
    "other variables": (
        change_variables,
        [
            "container BLUE: environment.HTTP_PROXY: is another than was applied",
            "container BLUE: environment.NOTE: is another than was applied",
        ],
        [],
    ),
    "less memory": (
        docker("update", "--memory", "96m", "--memory-swap", "96m", "BLUE"),
        ["container BLUE: mem_limit: 67108864 was applied, is 100663296"],
        [],
    ),
    "never started again": (
        docker("update", "--restart", "no", "BLUE"),
        ['container BLUE: restart: "unless-stopped" was applied, is "no"'],
        [],
    ),
    "another network": (
        docker("network", "connect", "bridge", "BLUE"),
        [f'container BLUE: networks: [{OWN}] was applied, is ["bridge", {OWN}]'],
        [],
    ),
    "paused": (docker("pause", "BLUE"), ['container BLUE: state: "running" was applied, is "paused"'], []),
    "goes on": (docker("unpause", "BLUE"), [], ['container BLUE: state: "running" was applied, is "paused"']),
    "a guest": (
        docker("create", "--name", "PROJECT-guest-1", *LABELS, "IMAGE"),
        ["container PROJECT-guest-1: should not be there"],
        [],
    ),
    "the project is edited": (
        lambda t: append_line(t.state.root / "project" / "compose.yaml"),
        ["file project/compose.yaml: was edited"],
        [],
    ),
    "another owner": (
        lambda t: os.chown(t.state.root / "secrets" / "password", 4242, 4242),
        ['file secrets/password: owner: "10001" was applied, is "4242"'],
        [],
    ),
    "stopped": (
        docker("stop", "--time", "0", "BLUE"),
        ["release RELEASE: does not run", 'container BLUE: state: "running" was applied, is "exited"'],
        ["container BLUE: networks: "],
    ),
    "removed": (
        docker("rm", "--force", "BLUE"),
        ["container PROJECT-api-blue: is gone"],
        ["container BLUE: "],
    ),
    "a network is gone": (docker("network", "rm", "PROJECT_data"), ["network PROJECT_data: is gone"], []),
    "a network that lets out": (
        docker("network", "create", "PROJECT_data"),
        ["network PROJECT_data: internal: true was applied, is false"],
        ["network PROJECT_data: is gone"],
    ),
}


def test_containers_as_they_were_made_are_no_drift(compose: DriftTarget) -> None:
    assert compose.lines() == []
    compose.release(compose.workload)
    assert compose.lines() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a secret's owner is changed by root alone")
@pytest.mark.parametrize("case", CONTAINERS)
def test_what_is_done_to_containers_is_found(compose: DriftTarget, case: str) -> None:
    plant, come, gone = CONTAINERS[case]
    project = compose.options["engine"]["project"]

    def filled(lines: list[str]) -> list[str]:
        words = {"BLUE": f"{project}-api-blue-1", "PROJECT": project, "RELEASE": compose.workload["release"]}
        for word, value in words.items():
            lines = [line.replace(word, value) for line in lines]
        return lines

    before = compose.lines()
    plant(compose)
    after = compose.lines()
    assert [line for line in after if line not in before] == filled(come)
    went = [line for line in before if line not in after]
    assert all(line.startswith(tuple(filled(gone))) for line in went) if gone else not went, went
