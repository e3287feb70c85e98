# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others have on an engine is refused by name before a change, and left where ours is taken away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import PROJECT_LABEL, DockerClient
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.ownership import own_containers
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.tests.engine_helpers import keep_service
from ansible_collections.whitestar.deploy.tests.helpers import SERVICE, Result, free_port, lock_options, run_module

ALL = ("container", "network", "volume")


def compose_up(engine: DockerClient, directory: Path, **services: Any) -> None:
    """Somebody's own project of this name, in a directory of theirs."""
    directory.mkdir()
    sleeper = {"image": "caddy:2", "entrypoint": ["sleep", "600"], "volumes": ["kept:/kept"], "stop_grace_period": "0s"}
    whole = {"name": engine.project, "services": {name: sleeper | more for name, more in services.items()}}
    (directory / "compose.yaml").write_text(yaml.safe_dump(whole | {"volumes": {"kept": {}}}))
    engine.run("compose", "up", "--detach", "--pull", "never", directory=str(directory))


def seen(engine: DockerClient) -> dict[str, Any]:
    """Everything of the project, as the engine describes it."""
    found = {}
    for kind in ALL:
        words = ["--all"] if kind == "container" else []
        names = engine.run(kind, "ls", "--quiet", *words, "--filter", f"label={PROJECT_LABEL}={engine.project}").split()
        found[kind] = json.loads(engine.run(kind, "inspect", *names)) if names else []
    return found


class Deployment:
    """A deployment of a reverse proxy alone, which is enough to own something."""

    def __init__(self, state: Path, options: dict[str, Any]) -> None:
        self.state, self.options = state, options
        self.engine = DockerClient.of(options)

    def begin(self, *, check: bool = False) -> Result:
        return run_module("host_lock", lock_options(self.state, engine=self.options), check=check)

    def deploy(self) -> None:
        assert not self.begin().failed
        door = {
            "name": "proxy",
            "image": "caddy:2",
            "definition": {
                "command": ["caddy", "respond", "--listen", ":8080", "hello"],
                "networks": ["front"],
                "tmpfs": ["/tmp", "/config", "/data"],
                "cap_add": ["NET_BIND_SERVICE"],
            },
            "volumes": {"mine": {}},
            "seconds": 60,
        }
        assert not keep_service(self.state, self.options, door).failed

    def tear_down(self) -> Result:
        address = f"127.0.0.1:{free_port()}"
        options = {"state_directory": str(self.state), "engine": self.options, "state": "absent", "address": address}
        return run_module("host_lifecycle", options | {"probes": SERVICE["probes"]})


@pytest.fixture
def deployment(place: Path, own_engine: dict[str, Any]) -> Deployment:
    return Deployment(place / "state", own_engine)


def test_somebody_s_project_is_refused_by_name_and_left_as_it_was(place: Path, deployment: Deployment) -> None:
    engine = deployment.engine
    compose_up(engine, place / "shop", database={}, web={})
    before = seen(engine)
    assert [len(before[kind]) for kind in ALL] == [2, 1, 1]
    for check in (True, False):
        message = deployment.begin(check=check).message
        for thing in ("container {}-database-1", "container {}-web-1", "network {}_default", "volume {}_kept"):
            told = f"titanic_project: {thing.format(engine.project)} is not of the deployment in {deployment.state}"
            assert f"{told}. Choose another titanic_project" in message
    assert not deployment.state.exists()
    assert not deployment.tear_down().changed
    assert seen(engine) == before


@pytest.mark.parametrize(
    ("kind", "name"),
    [("container", "-proxy-1"), ("container", "-api-blue-2"), ("network", "_data"), ("volume", "_database")],
)
def test_what_has_one_of_our_names_without_a_project_is_refused(deployment: Deployment, kind: str, name: str) -> None:
    engine = deployment.engine
    more = ["--name", engine.project + name, "--entrypoint", "sleep", "caddy:2", "600"] if kind == "container" else []
    engine.run(kind, "create", *(more or [engine.project + name]))
    try:
        message = deployment.begin(check=True).message
        assert f"titanic_project: {kind} {engine.project}{name} is not of the deployment" in message
    finally:
        engine.run(kind, "rm", engine.project + name)


def test_what_others_add_to_our_project_is_left_by_a_teardown(place: Path, deployment: Deployment) -> None:
    engine = deployment.engine
    deployment.deploy()
    ours = {thing["Name"] for things in seen(engine).values() for thing in things}
    compose_up(engine, place / "shop", web={})
    theirs = {kind: [thing for thing in things if thing["Name"] not in ours] for kind, things in seen(engine).items()}
    assert [len(theirs[kind]) for kind in ALL] == [1, 1, 1]
    assert not deployment.begin(check=True).failed, "a service that is none of ours is met nowhere"
    done = deployment.tear_down()
    assert done.changed
    for thing in ("container {}-web-1", "network {}_default", "volume {}_kept"):
        assert f"{thing.format(engine.project)} has been left: others made it, or use it" in str(done["warnings"])
    assert seen(engine) == theirs


@pytest.mark.parametrize("labelled", [True, False])
def test_a_volume_of_others_is_not_ours_for_its_name(deployment: Deployment, labelled: bool) -> None:
    """No service of ours that would have it was ever asked for: a project of others with this name has pgAdmin."""
    engine, name = deployment.engine, f"{deployment.engine.project}_pgadmin"
    deployment.deploy()
    engine.run("volume", "create", *(["--label", f"{PROJECT_LABEL}={engine.project}"] * labelled), name)
    before = engine.get(f"/volumes/{name}")
    try:
        for check in (True, False):
            message = deployment.begin(check=check).message
            assert f"titanic_project: volume {name} is not of the deployment in" in message
        done = deployment.tear_down()
        assert f"volume {name} has been left: others made it, or use it" in str(done["warnings"])
        assert engine.get(f"/volumes/{name}") == before
    finally:
        engine.run("volume", "rm", "--force", name)


def test_a_service_of_others_in_the_place_of_ours_is_refused(place: Path, deployment: Deployment) -> None:
    engine = deployment.engine
    deployment.deploy()
    compose_up(engine, place / "shop", database={})
    message = deployment.begin(check=True).message
    assert f"container {engine.project}-database-1 is not of the deployment" in message
    ours = own_containers(Project.of(State(deployment.state), engine))
    assert [container["Name"] for container in ours] == [f"/{engine.project}-proxy-1"]
    assert "proxy" not in message


def test_a_project_of_another_name_is_no_second_deployment(deployment: Deployment) -> None:
    deployment.deploy()
    renamed = Deployment(deployment.state, deployment.options | {"project": "renamed"})
    assert (
        f"has a deployment of the project {deployment.engine.project}, not renamed" in renamed.begin(check=True).message
    )


def test_a_deployment_from_before_there_was_a_record_is_ours(deployment: Deployment) -> None:
    deployment.deploy()
    project = Project.of(State(deployment.state), deployment.engine)
    (project.directory / ".owned").unlink()
    assert not deployment.begin(check=True).failed
    assert deployment.tear_down().changed
    assert seen(deployment.engine)["container"] == []
