# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release in containers takes over without harm to the one before, runs its commands, is looked at and removed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import json_bytes
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.definition import service_of
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import ComposeBlueGreen
from ansible_collections.whitestar.deploy.plugins.module_utils.host.fingerprint import fingerprint
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS
from ansible_collections.whitestar.deploy.tests.helpers import (
    SERVICE,
    Result,
    finish_module,
    lock_options,
    record,
    remove_project,
    run_module,
    spool,
    start_module,
    tiny_workload,
)

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"


class Target:
    """A Compose target: its state directory and its project."""

    def __init__(self, state: State, options: dict[str, Any], image: str) -> None:
        self.state = state
        self.options = options
        self.engine = DockerClient.of(options)
        self.image = image
        state.images.mkdir()

    def workload(self, identity: str, required: str = "0001", **environment: str) -> dict[str, Any]:
        return tiny_workload(self.image, identity, required, **environment)

    def arguments(self, **options: Any) -> dict[str, Any]:
        given = {"state_directory": str(self.state.root), "engine": self.options}
        return given | {"by": "alice@laptop", "why": "deploy", "ready_seconds": 120, "drain_seconds": 20} | options

    def deploy(self, workload: dict[str, Any], *, check: bool = False, **options: Any) -> Result:
        return run_module("host_release", self.arguments(workload=workload, **options), check=check)

    def restore(self, number: int, *, check: bool = False) -> Result:
        return run_module("host_release", self.arguments(restore=number, why="rollback"), check=check)

    def colours(self, workload: dict[str, Any]) -> ComposeBlueGreen:
        return ComposeBlueGreen(self.engine, self.state, workload, fingerprint(self.state, [], check=True), 20, 1)

    def serving(self) -> dict[str, str]:
        """The container that runs and is ready, by its release."""
        found = {}
        for colour in COLOURS:
            for container in self.containers(colour):
                address = container["NetworkSettings"]["Networks"][f"{self.engine.project}_front"]["IPAddress"]
                answer = try_request(f"{address}:8000", "/readyz") if address else None
                if answer and answer.status == 200:
                    found[answer.json()["release"]] = str(container["Id"])
        return found

    def containers(self, colour: str) -> list[dict[str, Any]]:
        return self.engine.containers(service_of(colour))

    def outcomes(self) -> list[tuple[str, str]]:
        return [(entry.release, entry.outcome) for entry in self.state.ledger().entries]


@pytest.fixture
def target(state: State, engine: dict[str, Any], tiny_image: str) -> Iterator[Target]:
    """An empty target of a project that tests share one after the other; only its networks stay until the last."""
    yield Target(state, engine, tiny_image)
    found = DockerClient.of(engine).containers()
    if found:
        DockerClient.of(engine).run("rm", "--force", *(container["Id"] for container in found))


def test_twelve_steps_of_a_release(target: Target) -> None:
    first, second = target.workload(A), target.workload(B)
    before = spool(target.state.root)
    seen = target.deploy(first, check=True)
    assert seen["action"] == "deployed"
    assert spool(target.state.root) == before
    assert target.engine.containers() == []
    done = target.deploy(first)
    assert (done["action"], done["entry"]["number"]) == ("deployed", 1)
    (old,) = target.serving().values()
    (container,) = target.containers("blue")
    assert container["HostConfig"]["Memory"] == 64 * 2**20
    assert container["HostConfig"]["ReadonlyRootfs"] is True
    assert container["Config"]["User"] == "10001:10001"

    before = spool(target.state.root)
    for check in (True, False):
        again = target.deploy(first, check=check)
        assert again["action"] == "none"
        assert not again.changed
        assert again["diff"]["before"] == again["diff"]["after"]
        assert target.deploy(second, check=True).changed
    assert spool(target.state.root) == before
    assert target.serving() == {first["release"]: old}

    assert target.deploy(second)["action"] == "deployed"
    assert list(target.serving()) == [second["release"]]
    assert target.containers("blue") == []
    assert not target.deploy(second, check=True).changed
    assert not target.deploy(second).changed

    seen = target.restore(1, check=True)
    assert (seen["action"], list(target.serving())) == ("deployed", [second["release"]])
    done = target.restore(1)
    assert (done["action"], done["release"], done["entry"]["restores"]) == ("deployed", first["release"], 1)
    assert list(target.serving()) == [first["release"]]
    assert not target.restore(1, check=True).changed
    assert not target.restore(1).changed
    assert target.outcomes() == [(w["release"], "succeeded") for w in (first, second, first)]


def test_all_replicas_are_ready_before_the_old_release_is_drained(target: Target) -> None:
    """Labels of the overrides are kept beside the one by which a container is known again."""
    workload = target.workload(A) | {"replicas": 2, "overrides": {"labels": {"people": "here"}}}
    assert target.deploy(workload)["action"] == "deployed"
    blue = target.containers("blue")
    assert len(blue) == 2
    assert all(container["Config"]["Labels"]["people"] == "here" for container in blue)
    assert len(target.colours(workload).addresses("blue")) == 2
    for container in blue:
        target.engine.run("exec", container["Id"], "sh", "-c", "echo seen >> /run/titanic-counts/file")
    assert target.engine.run("exec", blue[0]["Id"], "cat", "/run/titanic-counts/file").split() == ["seen", "seen"]
    assert not target.deploy(workload).changed
    target.engine.run("kill", blue[0]["Id"])
    assert target.deploy(workload)["action"] == "deployed"
    assert len(target.colours(workload).addresses("green")) == 2


def test_a_changed_secret_restarts_the_release_and_is_in_no_record(target: Target) -> None:
    token = target.state.root / "token"
    token.write_text("hunter2-one")
    workload = target.workload(A) | {"secret_files": {"token": str(token)}}
    done = target.deploy(workload)
    (old,) = target.serving().values()
    assert target.engine.run("exec", old, "cat", str(token)) == "hunter2-one"
    assert not target.deploy(workload).changed
    token.write_text("hunter2-two")
    assert target.deploy(workload, check=True).changed
    changed = target.deploy(workload)
    assert changed["action"] == "deployed"
    (new,) = target.serving().values()
    assert target.engine.run("exec", new, "cat", str(token)) == "hunter2-two"
    token.unlink()
    recorded = b"".join(spool(target.state.root).values()).decode(errors="replace")
    assert "hunter2" not in done.output + changed.output + recorded + target.engine.run("inspect", new)


def test_proxies_of_the_client_reach_no_release_and_no_command(target: Target, proxied: dict[str, Any]) -> None:
    """A release that has got one is replaced, as the reverse proxy is, and nobody feels it."""
    workload = target.workload(A)
    project, engine = Project.of(target.state, target.engine), target.options | proxied
    assert target.deploy(workload)["action"] == "deployed"
    part = project.part("api-blue")
    variables = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    service = part["services"]["api-blue"]
    before = {name: value for name, value in service["environment"].items() if "_proxy" not in name.lower()}
    project.write("api-blue", part | {"services": {"api-blue": service | {"environment": before}}})
    Project.of(target.state, DockerClient.of(engine)).up("api-blue")
    (container,) = target.containers("blue")
    assert {f"{name}={value}" for name, value in variables.items()} < set(container["Config"]["Env"])
    assert target.deploy(workload, check=True)["action"] == "deployed"
    assert target.deploy(workload, engine=engine)["action"] == "deployed"
    (container,) = target.containers("green")
    assert not [entry for entry in container["Config"]["Env"] if "127.0.0.1:9" in entry]
    assert not target.deploy(workload).changed
    said = DockerClient.of(engine).run_container(target.image, ["env"], "--env", "FTP_PROXY=asked:1", seconds=60).stdout
    assert "127.0.0.1:9" not in said
    assert "FTP_PROXY=asked:1" in said


@pytest.mark.parametrize(
    ("behaviour", "seconds", "words"),
    [
        ("exits", 240, "it ended at once (exit code 1); its last output:\ntiny release {} starts"),
        ("hungry", 240, "ran out of memory (limit: 64m); its last output:\ntiny release {} starts"),
    ],
    ids=["exits", "hungry"],
)
def test_a_bad_release_is_recorded_and_the_old_one_serves_on(
    target: Target, behaviour: str, seconds: int, words: str
) -> None:
    good, bad = target.workload(A), target.workload(B, TINY_BEHAVIOUR=behaviour)
    target.deploy(good)
    before = target.serving()
    started = time.monotonic()
    failed = target.deploy(bad, ready_seconds=seconds)
    assert time.monotonic() - started < 200, "it was waited for although it had ended"
    assert f"release {bad['release']} did not take over, what served before serves on" in failed.message
    assert words.format(bad["release"]) in failed.message
    assert target.serving() == before
    assert target.containers("green") == []
    assert target.outcomes() == [(good["release"], "succeeded"), (bad["release"], "failed")]
    assert not target.deploy(good).changed
    project = target.state.root / "project"
    assert bad["release"] not in (project / "compose.yaml").read_text()


def test_an_image_that_is_gone_is_a_failure_in_the_engine_s_words(target: Target) -> None:
    target.deploy(target.workload(A))
    before = target.serving()
    failed = target.deploy(target.workload(B) | {"image": "unit-none:1"})
    assert "unit-none:1" in failed.message
    assert target.serving() == before
    assert target.outcomes()[-1][1] == "failed"
    assert not target.deploy(target.workload(A)).changed


def test_the_drain_is_seen_inside_whatever_our_umask_is(target: Target) -> None:
    workload = target.workload(A)
    run = start_module("host_release", target.arguments(workload=workload), umask=0o077)
    assert not finish_module(run).failed
    assert list(target.serving()) == [workload["release"]]
    target.state.drain_file("blue").touch()
    assert target.serving() == {}
    assert target.deploy(workload).changed
    assert list(target.serving()) == [workload["release"]]


def test_pruning_spares_what_a_rollback_needs(target: Target) -> None:
    repository = f"{target.engine.project}-pruned"
    workloads = []
    for letter in "abc":
        tag = f"{repository}:{letter * 12}"
        target.engine.run("tag", target.image, tag)
        found = target.engine.image(tag)
        assert found is not None
        directory = target.state.images / (letter * 12)
        directory.mkdir()
        (directory / "image.json").write_bytes(json_bytes({"reference": found["Id"], "tags": [tag]}))
        workloads.append(target.workload(letter * 12) | {"image": tag})
        pruned = target.deploy(workloads[-1], keep=1)["pruned"]
    assert pruned == [workloads[0]["release"]]
    assert sorted(path.name for path in target.state.images.iterdir()) == [B, C]
    tags = target.engine.run("image", "ls", "--format", "{{.Tag}}", repository).split()
    assert sorted(tags) == [B, C]
    target.engine.run("image", "rm", f"{repository}:{B}")
    assert "its image or workload is gone" in target.restore(2).message


@pytest.fixture
def data(target: Target) -> Target:
    """A target with the network that commands run on, which comes with the first container of the project."""
    with suppress(EngineError):
        name = f"{target.engine.project}_data"
        label = f"com.docker.compose.project={target.engine.project}"
        more = ["--label", "com.docker.compose.network=data"]
        target.engine.run("network", "create", "--internal", "--label", label, *more, name)
    return target


def command(target: Target, *words: str, check: bool = False, **options: Any) -> Result:
    given = {
        "engine": target.options,
        "image": target.image,
        "command": ["tiny", *words],
        "check_argument": "--check",
        "environment": {"TINY_DONE": "/done/done"},
    }
    return run_module("host_command", given | options, check=check)


def test_twelve_steps_of_a_command(data: Target, place: Path) -> None:
    """The database's place is taken by a file, which check mode sees and does not make."""
    done = place / "done"
    files = {"secret_files": {"done": str(done)}, "environment": {"TINY_DONE": str(done)}}
    for check in (True, False):
        seen = command(data, "migrate", check=check, environment={"TINY_DONE": "/tmp/done"})
        assert seen.changed
        assert seen["answer"] == {"from": None, "to": "0001", "changed": True}
    assert not done.exists()
    done.touch()
    for check in (True, False):
        again = command(data, "migrate", check=check, **files)
        assert not again.changed
        assert again["diff"] == {"before": "", "after": ""}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fail"], "tiny fail failed (1): tiny release: this migration cannot be applied"),
        (["mumble"], "tiny mumble failed (0)"),
    ],
)
def test_a_failure_is_told_in_the_release_s_words(data: Target, words: list[str], message: str) -> None:
    assert message in command(data, *words).message


def test_a_command_that_takes_too_long_is_ended(data: Target) -> None:
    assert "tiny sleep took longer than 2 s and was ended" in command(data, "sleep", seconds=2).message
    running = data.engine.run("ps", "--all", "--quiet", "--filter", f"name={data.engine.project}-once")
    assert running == "", "the container runs on without its client"


def test_what_is_not_there_yet_would_run_in_check_mode(data: Target, place: Path) -> None:
    for options in ({"image": "unit-none:1"}, {"image": ""}, {"required_files": [f"{place}/secret"]}):
        assert command(data, "migrate", check=True, **options).changed
        assert "is missing. Run the whole site once" in command(data, "migrate", **options).message
    gone = data.options | {"socket": f"{place}/none.sock"}
    assert "no Docker engine answers" in command(data, "migrate", engine=gone).message


def test_a_release_to_go_back_to_is_chosen_by_the_live_schema(data: Target) -> None:
    workloads = [
        data.workload(A, required="0001"),
        data.workload(B, required="0002"),
        data.workload(C, required="0003", TINY_LIVE_SCHEMA="0002"),
    ]
    record(data.state, *workloads)

    def choose(release: str = "", *, check: bool = False, **options: Any) -> Result:
        given = {"state_directory": str(data.state.root), "engine": data.options, "release": release}
        return run_module("host_rollback_target", given | options, check=check)

    before = spool(data.state.root)
    for check in (True, False):
        chosen = choose(check=check)
        assert not chosen.changed
        assert (chosen["entry"]["number"], chosen["serving"]) == (2, workloads[2]["release"])
    assert "needs schema 0001, but the live schema serves releases from 0002 on" in choose("aaaa").message
    gone = data.options | {"socket": f"{data.state.root}/none.sock"}
    assert "rollback refused, nothing was touched: no Docker engine" in choose(engine=gone).message
    path = data.state.configurations / f"{workloads[2]['release']}.json"
    silent = json.loads(path.read_text())
    del silent["environment"]["TINY_LIVE_SCHEMA"]
    path.write_bytes(json_bytes(silent))
    assert "the live schema is not known" in choose().message
    path.write_bytes(json_bytes(workloads[2]))
    assert spool(data.state.root) == before


def test_a_look_and_a_removal(place: Path, own_engine: dict[str, Any], tiny_image: str) -> None:
    """The six steps of a deletion: nothing of the project is left in the engine, and nothing else is touched."""
    state = State(place / "state")
    state.root.mkdir()
    target = Target(state, own_engine, tiny_image)
    built = f"{target.engine.project}-built:{A}"
    target.engine.run("tag", tiny_image, built)
    found = target.engine.image(built)
    assert found is not None
    (state.images / A).mkdir()
    (state.images / A / "image.json").write_bytes(json_bytes({"reference": found["Id"], "tags": [built]}))
    workload = target.workload(A)
    target.deploy(workload)
    (address,) = target.colours(workload).addresses("blue")
    bystander = DockerClient.of(own_engine | {"project": f"{target.engine.project}x"})
    label = f"com.docker.compose.project={bystander.project}"
    bystander.run("run", "--detach", "--network", "none", "--label", label, tiny_image, "tiny", "sleep")

    def look(wanted: str = "reported", *, check: bool = False) -> Result:
        given = {"state_directory": str(state.root), "engine": own_engine, "state": wanted, "address": address}
        return run_module("host_lifecycle", given | {"probes": SERVICE["probes"]}, check=check)

    try:
        before = spool(state.root)
        for check in (True, False):
            seen = look(check=check)
            assert not seen.changed
            status = seen["status"]
            assert (status["ready"], status["release"]) == (True, workload["release"])
            assert status["processes"] == {f"{target.engine.project}-api-blue-1": "running"}
            assert status["lock"] == "free"
        seen = look("absent", check=True)
        assert seen.changed
        assert workload["release"] in seen["diff"]["before"]
        assert spool(state.root) == before
        assert target.serving()
        things, directory = look("absent")["steps"]
        assert things.startswith(f"remove container {target.engine.project}-api-blue-1, network ")
        assert directory == f"remove {state.root} with all data, secrets and releases"
        assert not state.root.exists()
        assert target.engine.containers() == []
        for kind in ("network", "volume"):
            label = f"label=com.docker.compose.project={target.engine.project}"
            assert target.engine.run(kind, "ls", "--quiet", "--filter", label) == ""
        assert target.engine.image(built) is None
        assert target.engine.image(tiny_image) is not None
        assert len(bystander.containers()) == 1
        for check in (True, False):
            again = look("absent", check=check)
            assert not again.changed
            assert again["status"] == {}
        assert look()["status"] == {}
    finally:
        remove_project(bystander)


def test_a_run_begins_with_what_serves(target: Target) -> None:
    # Networks of the project are there, from the tests above.
    Project.of(target.state, target.engine).write("database", {})
    given = lock_options(target.state.root, engine=target.options, port=0)
    seen = run_module("host_lock", given, check=True)
    assert not seen.changed
    assert (seen["live"], seen["live_image"]) == ({}, "")
    workload = target.workload(A)
    target.deploy(workload)
    seen = run_module("host_lock", given)
    assert (seen["live"]["release"], seen["live_image"]) == (workload["release"], workload["image"])
