# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody changes on a host is found by name and path: files, processes, containers; secrets by name alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.compose import PROJECT_LABEL, SERVICE_LABEL, Engine
from ansible_collections.whitestar.deploy.plugins.module_utils.host_drift import size
from ansible_collections.whitestar.deploy.plugins.module_utils.lock import Lock, Owner
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import Cluster
from ansible_collections.whitestar.deploy.plugins.module_utils.process import service_environment
from ansible_collections.whitestar.deploy.plugins.module_utils.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.written import NAME, edited, note
from ansible_collections.whitestar.deploy.tests.unit.means import (
    ACCOUNT,
    kill,
    make_workload,
    open_directory,
    remove_project,
    run_module,
    spool,
    tiny_workload,
    wait_for,
)

# Processes are started here that outlive what started them.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
PLANTED = "planted-password-of-the-host"
ME = "root" if os.geteuid() == 0 else None


class Target:
    """A target whose drift is asked for."""

    def __init__(self, state: State, **options: Any) -> None:
        self.state = state
        self.options = {"state_directory": str(state.root)} | options
        self.workload: dict[str, Any] = {}

    def secrets(self, value: str = PLANTED) -> None:
        directory = str(self.state.root / "secrets")
        assert not run_module("host_secrets", {"directory": directory, "given": {"password": value}}).failed

    def release(self, workload: dict[str, Any]) -> None:
        """Have it served, as roles/titanic_api does."""
        self.workload = workload | {"secret_files": {"password": str(self.state.root / "secrets" / "password")}}
        self.state.images.mkdir(exist_ok=True)
        given = {"by": "alice@laptop", "why": "deploy", "ready_seconds": 60, "drain_seconds": 1}
        engine = {"engine": self.options["engine"]} if "engine" in self.options else {}
        done = run_module("host_release", {"workload": self.workload, **self.state_option, **engine, **given})
        assert not done.failed, done.output

    @property
    def state_option(self) -> dict[str, Any]:
        return {"state_directory": str(self.state.root)}

    def lines(self, **options: Any) -> list[str]:
        """What differs, without who and when; no secret is told, and nothing is written."""
        before = spool(self.state.root)
        seen = run_module("host_drift", self.options | options)
        assert not seen.changed
        assert PLANTED not in seen.output
        assert {name: content for name, content in spool(self.state.root).items() if "log" not in name} == {
            name: content for name, content in before.items() if "log" not in name
        }
        return [str(each["text"]).partition(" (")[0] for each in seen["differences"]]


@pytest.fixture
def local(state: State, bindir: Path) -> Target:
    """A release as processes, with a front door that only sleeps."""
    target = Target(state, account=ACCOUNT, bindir=str(bindir))
    target.secrets()
    target.release(make_workload(state, "a" * 12, TINY_BEHAVIOUR="good"))
    content = b"one {\n}\n"
    (state.root / "Caddyfile").write_bytes(content)
    note(state.root, {"Caddyfile": content})
    state.daemon("caddy").start(["/bin/sleep", "600"], service_environment({}), {"command": "c", "configuration": "d"})
    return target


def test_what_a_deployment_leaves_is_no_drift(local: Target) -> None:
    assert local.lines() == []
    local.release(make_workload(local.state, "a" * 12, TINY_BEHAVIOUR="good"))
    assert local.lines() == []
    local.release(make_workload(local.state, "b" * 12, TINY_BEHAVIOUR="good"))
    assert local.lines() == []
    assert not run_module("host_drift", local.options, check=True).changed


def test_nothing_is_not_as_it_was_applied(state: State, bindir: Path) -> None:
    target = Target(state, account=ACCOUNT, bindir=str(bindir), database={"database": "d", "owner": "o", "user": "u"})
    line = "nothing is recorded in it: all of it is gone, or nothing has been deployed"
    assert target.lines() == [f"directory {state.root}: {line}"]
    state.root.rmdir()
    assert target.lines() == [f"directory {state.root}: {line}"]
    state.root.mkdir()


def release_file(target: Target) -> Path:
    return target.state.configurations / f"{target.workload['release']}.json"


def edit(path: Path) -> None:
    path.write_text(path.read_text() + "\n")


def start_again(target: Target, colour: str, **environment: str) -> None:
    """Somebody starts a colour by hand, and records it as if it were the release."""
    daemon = target.state.daemon(colour)
    own = {"TITANIC_BIND": target.state.address(colour), "TITANIC_DRAIN_FILE": str(target.state.drain_file(colour))}
    facts = {key: daemon.facts().get(key) for key in ("release", "fingerprint", "at")}
    daemon.stop(0.2)
    (target.state.run / f"{colour}.sock").unlink(missing_ok=True)
    program = Path(target.workload["image"]) / "bin" / "tiny"
    daemon.start(
        [str(program), "serve"], service_environment(target.workload["environment"] | own | environment), facts
    )


def other_pid(target: Target) -> None:
    """What is recorded of a process is another one's."""
    daemon = target.state.daemon("blue")
    daemon.label({"pid": 1, "started": 1})


LOCAL: dict[str, tuple[Callable[[Target], object], list[str]]] = {
    "a file is edited": (lambda t: edit(t.state.root / "Caddyfile"), ["file Caddyfile: was edited"]),
    "a file is gone": (lambda t: (t.state.root / "Caddyfile").unlink(), ["file Caddyfile: is gone"]),
    "a release's settings are edited": (lambda t: edit(release_file(t)), ["file releases/RELEASE.json: was edited"]),
    "a release's settings are gone": (
        lambda t: release_file(t).unlink(),
        ["release RELEASE: what it serves with is gone"],
    ),
    "others may read a secret": (
        lambda t: (t.state.root / "secrets" / "password").chmod(0o644),
        ['file secrets/password: mode: "0600" was applied, is "0644"'],
    ),
    "others may enter": (
        lambda t: (t.state.root / "secrets").chmod(0o755),
        ['file secrets: mode: "0700" was applied, is "0755"'],
    ),
    "a secret is another": (
        lambda t: t.secrets("by-hand-and-long"),
        ["colour blue: secrets are others than it was started with"],
    ),
    "a secret is gone": (
        lambda t: (t.state.root / "secrets" / "password").unlink(),
        ["file secrets/password: is gone", "colour blue: secrets are others than it was started with"],
    ),
    "it is held": (lambda t: t.state.drain_file("blue").touch(), ["colour blue: is held back from requests"]),
    "it was stopped": (lambda t: t.state.daemon("blue").stop(0.2), ["release RELEASE: does not run"]),
    "the front door was stopped": (
        lambda t: kill(t.state.daemon("caddy").facts()["pid"]),
        ["process caddy: does not run"],
    ),
    "the release is gone": (
        lambda t: shutil.rmtree(t.workload["image"]),
        ["release RELEASE: image: IMAGE is gone"],
    ),
    "it runs with other settings": (
        lambda t: start_again(t, "blue", TINY_BEHAVIOUR="stubborn"),
        ['process blue: environment.TINY_BEHAVIOUR: "good" was applied, is "stubborn"'],
    ),
    "another one is recorded": (other_pid, ["process blue: pid: 1 was applied, is PID"]),
    "the other colour runs": (
        lambda t: start_again(t, "green"),
        ["colour green: should not run, and runs release None"],
    ),
}


@pytest.mark.parametrize("case", LOCAL)
def test_what_is_planted_is_found(local: Target, case: str) -> None:
    plant, expected = LOCAL[case]
    pid = str(local.state.daemon("blue").facts()["pid"])
    plant(local)
    words = {"RELEASE": local.workload["release"], "IMAGE": local.workload["image"], "PID": pid}
    for word, value in words.items():
        expected = [line.replace(word, value) for line in expected]
    wait_for(lambda: local.lines() == expected or case != "the front door was stopped", 10)
    assert local.lines() == expected


def test_who_and_when_are_told(local: Target) -> None:
    path = local.state.root / "Caddyfile"
    edit(path)
    os.utime(path, (1, 1))
    (found,) = run_module("host_drift", local.options)["differences"]
    assert found["at"] == "1970-01-01T00:00:01Z"
    assert ME is None or found["by"] == ME


def test_a_run_at_work_is_told_of(local: Target) -> None:
    Lock(local.state.lock).acquire(Owner("another.example", "carol", 1, 1), 3600)
    (warning,) = run_module("host_drift", local.options).warnings
    assert "carol@another.example" in warning


def test_a_database_that_does_not_run_is_found(local: Target) -> None:
    names = {"database": "titanic", "owner": "o", "user": "u"}
    assert local.lines(database=names) == ["database titanic: does not run"]


def test_configuration_of_the_server_is_looked_at(place: Path, bindir: Path, cluster: Cluster) -> None:
    """Its files are taken note of when they are written, and found when they are edited."""
    assert list(edited(cluster.directory)) == []
    kept = (cluster.data / "pg_hba.conf").read_text()
    try:
        (cluster.data / "pg_hba.conf").write_text(f"host all all all trust\n{kept}")
        assert list(edited(cluster.directory)) == [(cluster.data / "pg_hba.conf", "was edited")]
    finally:
        (cluster.data / "pg_hba.conf").write_text(kept)
    assert list(edited(cluster.directory)) == []


def test_notes_are_kept_of_what_is_there(place: Path) -> None:
    for name in ("one", "two"):
        (place / name).write_text(name)
    note(place, {"one": b"one", "two": b"two"})
    assert list(edited(place)) == []
    written = (place / NAME).stat().st_mtime_ns
    note(place, {"one": b"one"})
    assert (place / NAME).stat().st_mtime_ns == written
    note(place, {"two": None})
    assert json.loads((place / NAME).read_text()).keys() == {"one"}


@pytest.mark.parametrize(
    ("text", "expected"), [("64m", 2**26), ("1g", 2**30), ("512k", 2**19), ("1.5gb", 1610612736), ("7", 7)]
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.fixture(scope="module")
def compose(engine: dict[str, Any], tiny_image: str) -> Iterator[Target]:
    """A release in containers, of a project of this module's own."""
    place = open_directory()
    state = State(place / "state")
    state.root.mkdir()
    target = Target(state, engine=engine)
    target.secrets()
    target.release(tiny_workload(tiny_image, "a" * 12, TINY_BEHAVIOUR="good"))
    os.chown(state.root / "secrets" / "password", 10001, 10001)
    yield target
    remove_project(Engine.of(engine))
    shutil.rmtree(place)


def docker(*words: str) -> Callable[[Target], object]:
    """Somebody uses docker; PROJECT stands for the project, BLUE for the container that serves."""

    def use(target: Target) -> object:
        engine = Engine.of(target.options["engine"])
        named = {"PROJECT": engine.project, "BLUE": f"{engine.project}-api-blue-1", "IMAGE": target.workload["image"]}
        given = list(words)
        for word, value in named.items():
            given = [text.replace(word, value) for text in given]
        return engine.run(*given)

    return use


OWN = '"PROJECT_data", "PROJECT_front"'
LABELS = ("--label", f"{PROJECT_LABEL}=PROJECT", "--label", f"{SERVICE_LABEL}=guest")
# Each is done after the others before it: what comes to the list, and what goes.
CONTAINERS: dict[str, tuple[Callable[[Target], object], list[str], list[str]]] = {
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
        lambda t: edit(t.state.root / "project" / "compose.yaml"),
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


def test_containers_as_they_were_made_are_no_drift(compose: Target) -> None:
    assert compose.lines() == []
    compose.release(compose.workload)
    assert compose.lines() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a secret's owner is changed by root alone")
@pytest.mark.parametrize("case", CONTAINERS)
def test_what_is_done_to_containers_is_found(compose: Target, case: str) -> None:
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
