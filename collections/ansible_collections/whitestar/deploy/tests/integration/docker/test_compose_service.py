# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service of a Compose project is kept as it should be, and disturbed no more than a change demands."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.module_utils.common.address import host_port, published
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    PROJECT_LABEL,
    SERVICE_LABEL,
    DockerClient,
    pinned,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.tests.engine_helpers import TASKS, keep_service, needed
from ansible_collections.whitestar.deploy.tests.helpers import (
    COLLECTION,
    RUN_SECONDS,
    Result,
    finish_module,
    free_port,
    lock_options,
    open_directory,
    require_ipv6,
    run_ansible,
    run_module,
    spool,
    start_module,
    wait_for,
)

CADDYFILE = """{
    admin unix//tmp/caddy.sock
    auto_https off
    persist_config off
}
http://:8080 {
    respond "WORDS"
}
"""
CADDY = ["--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]


class Door:
    """A reverse proxy that the module keeps, with a word of its own as its answer."""

    def __init__(self, place: Path, options: dict[str, Any]) -> None:
        self.state = State(place / "state")
        self.options = options
        self.engine = DockerClient.of(options)
        self.address = f"127.0.0.1:{free_port()}"
        self.definition: dict[str, Any] = {
            "command": ["caddy", "run", *CADDY],
            "networks": ["front"],
            "ports": [f"{self.address}:8080"],
            "restart": "unless-stopped",
            "cap_add": ["NET_BIND_SERVICE"],
            "stop_grace_period": "1s",
            "tmpfs": ["/tmp:mode=1777", "/config:mode=1777"],
            "volumes": ["proxy:/data", f"{self.state.root}/project/proxy:/etc/caddy:ro"],
        }

    def service(self, words: str = "one", **options: Any) -> dict[str, Any]:
        given = {
            "name": "proxy",
            "image": "caddy:2",
            "definition": self.definition,
            "volumes": {"proxy": {}},
            "files": {"Caddyfile": CADDYFILE.replace("WORDS", words)},
            "check_command": ["caddy", "adapt", "--config", "/candidate/Caddyfile", "--adapter", "caddyfile"],
            "reload_command": ["caddy", "reload", *CADDY, "--address", "unix//tmp/caddy.sock"],
            "answers_at": self.address,
            "seconds": 120,
        }
        return given | options

    def keep(
        self, words: str = "one", *, check: bool = False, engine: dict[str, Any] | None = None, **options: Any
    ) -> Result:
        return keep_service(self.state.root, engine or self.options, self.service(words, **options), check=check)

    def answer(self) -> str:
        found = try_request(self.address, "/")
        return found.body.decode() if found else ""

    def run(self) -> tuple[str, str]:
        """What tells one run of the container from another: its id and when it was started."""
        (container,) = self.engine.containers("proxy")
        return container["Id"], container["State"]["StartedAt"]


@pytest.fixture(scope="module")
def kept(engine: dict[str, Any]) -> Iterator[Door]:
    """A reverse proxy as the first run leaves it."""
    place = open_directory()
    door = Door(place, engine)
    assert door.keep().changed
    yield door
    shutil.rmtree(place)


@pytest.fixture
def door(kept: Door) -> Iterator[Door]:
    yield kept
    kept.keep()


def test_twelve_steps(place: Path, own_engine: dict[str, Any]) -> None:
    """From nothing, a change of a file, a change of the definition; each in check mode and for real, and again."""
    door = Door(place, own_engine)
    seen = door.keep(check=True)
    assert needed(seen) == ["write", "start"]
    assert '"proxy"' in seen["diff"]["after"]
    assert not door.state.root.exists()
    assert door.engine.containers() == []
    done = door.keep()
    assert needed(done) == ["write", "start"]
    assert door.answer() == "one"
    (container,) = door.engine.containers()
    assert container["Config"]["Image"] == pinned(door.engine, "caddy:2", pull=False)
    assert container["HostConfig"]["ReadonlyRootfs"] is True
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    assert container["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]

    first, before = door.run(), spool(door.state.root)
    for check in (True, False):
        again = door.keep(check=check)
        assert needed(again) == []
        assert again["diff"]["before"] == again["diff"]["after"]
    assert door.run() == first
    assert spool(door.state.root) == before

    assert needed(door.keep("two", check=True)) == ["write", "reload"]
    assert spool(door.state.root) == before
    assert door.answer() == "one"
    assert needed(door.keep("two")) == ["write", "reload"]
    assert door.answer() == "two"
    assert door.run() == first, "a changed file restarted the container"
    assert needed(door.keep("two", check=True)) == needed(door.keep("two")) == []

    definition = door.definition | {"environment": {"NOTE": "$HOME is ${not} replaced"}}
    seen = door.keep("two", check=True, definition=definition)
    assert needed(seen) == ["write", "start"]
    assert "NOTE" in seen["diff"]["after"]
    assert "NOTE" not in seen["diff"]["before"]
    assert door.run() == first
    assert needed(door.keep("two", definition=definition)) == ["write", "start"]
    assert door.run()[0] != first[0]
    (container,) = door.engine.containers()
    assert "NOTE=$HOME is ${not} replaced" in container["Config"]["Env"]
    assert door.answer() == "two"
    assert needed(door.keep("two", check=True, definition=definition)) == []
    assert needed(door.keep("two", definition=definition)) == []


def test_a_broken_file_is_refused_before_it_replaces_the_old_one(door: Door) -> None:
    run, before = door.run(), spool(door.state.root)
    message = door.keep('one"\n nonsense "').message
    assert message.startswith("proxy: 'caddy adapt --config /candidate/Caddyfile")
    assert "unrecognized directive: nonsense" in message
    assert spool(door.state.root) == before
    assert door.run() == run
    assert door.answer() == "one"
    assert not door.keep().changed


def test_files_are_judged_whatever_our_umask_is(door: Door) -> None:
    given = {"state_directory": str(door.state.root), "engine": door.options, "service": door.service("masked")}
    assert needed(finish_module(start_module("compose_service", given, umask=0o077))) == ["write", "reload"]
    assert not door.keep("masked").failed
    assert door.answer() == "masked"


def test_a_reload_that_was_cut_off_is_made_up_for(door: Door) -> None:
    run = door.run()
    text = door.service("written")["files"]["Caddyfile"]
    (door.state.root / "project" / "proxy" / "Caddyfile").write_text(text)
    assert door.answer() == "one"
    (door.state.root / "project" / "proxy" / ".applied").unlink()
    assert needed(door.keep("written", check=True)) == ["reload"]
    assert needed(door.keep("written")) == ["reload"]
    assert door.answer() == "written"
    assert door.run() == run
    assert not door.keep("written").changed


def test_a_run_that_was_cut_off_before_compose_is_made_up_for(door: Door) -> None:
    """What was planned is written, and a container that is made afterwards finds its files as they are."""
    changed = door.service("cut off", definition=door.definition | {"environment": {"NOTE": "cut off"}})
    given = {"state_directory": str(door.state.root), "engine": door.options, "service": changed}
    planned = run_module("compose_service", given)
    assert needed(planned) == ["write", "start"]
    assert [call["state"] for call in planned["compose"]] == ["present"]
    assert door.answer() == "one"
    assert needed(door.keep("cut off", definition=changed["definition"])) == ["start"]
    assert door.answer() == "cut off"
    assert not door.keep("cut off", definition=changed["definition"]).changed


def test_a_container_that_was_killed_is_started_again(door: Door) -> None:
    name, started = door.run()
    door.engine.run("kill", name)
    assert needed(door.keep(check=True)) == ["start"]
    assert door.answer() == ""
    assert needed(door.keep()) == ["start"]
    assert door.run()[0] == name
    assert door.run()[1] != started
    assert door.answer() == "one"


def test_a_container_that_was_removed_is_made_again(door: Door) -> None:
    door.engine.run("rm", "--force", door.run()[0])
    assert needed(door.keep(check=True)) == ["start"]
    assert needed(door.keep()) == ["start"]
    assert door.answer() == "one"


def test_a_port_that_the_engine_passes_on_no_more_is_opened_again(door: Door) -> None:
    """The engine's proxy for a published port ends for ever when it has too many connections; the container runs on."""
    name, started = door.run()
    port = door.address.rpartition(":")[2]
    proxies = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if passes_on(path, port)]
    if os.geteuid() != 0 or not proxies:
        pytest.skip("only root ends a process of the engine, where that has one for each port")
    for process in proxies:
        os.kill(int(process.name), signal.SIGKILL)
    wait_for(lambda: door.answer() == "")
    assert needed(door.keep(check=True)) == ["restart"]
    assert door.run() == (name, started)
    assert needed(door.keep()) == ["restart"]
    assert door.answer() == "one"
    assert door.run()[0] == name
    assert not door.keep().changed


def passes_on(path: Path, port: str) -> bool:
    """Whether this is the command line of the engine's proxy for a port of the host."""
    words = path.read_bytes().decode(errors="replace").split("\0") if path.exists() else []
    return "docker-proxy" in words[0] and port in words if words else False


def test_a_container_that_the_engine_has_restarted_once_is_no_failure(door: Door) -> None:
    """A crash long ago is counted for as long as the container lives."""
    check = {"test": ["CMD", "true"], "interval": "1s", "start_period": "9s", "start_interval": "1s"}
    definition = door.definition | {"healthcheck": check}
    door.keep(definition=definition)
    (container,) = door.engine.containers("proxy")
    if os.geteuid() != 0:
        pytest.skip("only root ends a process of a container from outside")
    os.kill(container["State"]["Pid"], signal.SIGKILL)
    wait_for(lambda: door.engine.containers("proxy")[0]["RestartCount"] == 1)
    assert not door.keep(definition=definition).failed
    (container,) = door.engine.containers("proxy")
    assert container["State"]["Health"]["Status"] == "healthy"
    assert not door.keep(definition=definition).changed


@pytest.mark.parametrize("restart", ["no", "unless-stopped"])
def test_a_container_that_ends_is_told_with_its_last_words(door: Door, restart: str) -> None:
    """At once, and not after all the time that it may take."""
    wrong = {"command": ["caddy", "no-such-command"], "restart": restart}
    failed = door.keep(definition=door.definition | wrong, seconds=RUN_SECONDS)
    assert failed.message.startswith("proxy: the container does not get ready")
    assert 'its last output:\nError: unknown command "no-such-command"' in failed.message


def test_a_container_that_does_not_answer_is_told_from_one_that_does(door: Door) -> None:
    other = f"127.0.0.1:{free_port()}"
    message = door.keep("elsewhere", answers_at=other, seconds=0.5).message
    assert message.startswith(f"proxy: the container does not get ready or does not answer at {other}; its last")


def test_an_image_that_nobody_has_is_a_change_and_then_a_failure(door: Door) -> None:
    before = spool(door.state.root)
    seen = door.keep(check=True, image="localhost:1/nobody/has:1")
    assert seen.changed
    assert "docker pull --quiet localhost:1/nobody/has:1 failed" in door.keep(image="localhost:1/nobody/has:1").message
    assert spool(door.state.root) == before


def test_secrets_are_where_they_are_outside_and_in_no_record(door: Door, place: Path) -> None:
    secret = place / "token"
    secret.write_text("hunter2-secret")
    done = door.keep(secret_files={"token": str(secret)})
    assert door.engine.run("exec", door.run()[0], "cat", str(secret)) == "hunter2-secret"
    inspected = door.engine.run("inspect", door.run()[0])
    assert "hunter2" not in done.output + inspected
    assert not [name for name, content in spool(door.state.root).items() if b"hunter2" in content]


def test_a_run_may_begin_where_only_our_own_reverse_proxy_has_the_port(door: Door) -> None:
    address, _, port = door.address.partition(":")
    given = lock_options(door.state.root, address=address, port=int(port))
    assert not run_module("host_lock", given | {"engine": door.options}, check=True).failed
    message = run_module("host_lock", given | {"engine": door.options, "address": "192.0.2.1"}, check=True).message
    assert message.startswith(f"titanic_api_address: 192.0.2.1:{port} cannot be listened on")
    other = door.options | {"project": f"{door.engine.project}-other"}
    message = run_module("host_lock", given | {"engine": other}, check=True).message
    assert message.startswith(f"titanic_api_port: {door.address} is in use by another program")
    with socket.create_server((address, 0)) as taken:
        wanted = given | {"engine": door.options, "port": taken.getsockname()[1]}
        message = run_module("host_lock", wanted, check=True).message
    assert message.startswith(f"titanic_api_port: {address}:{wanted['port']} is in use by another program")


def test_people_can_run_the_project_by_hand(door: Door) -> None:
    """The file that is written is what Compose makes of it, and Compose finds nothing to do."""
    directory, run = str(door.state.root / "project"), door.run()
    shown = yaml.safe_load(door.engine.run("compose", "config", directory=directory))
    assert shown["services"]["proxy"]["command"] == door.definition["command"]
    door.engine.run("compose", "up", "--detach", directory=directory)
    assert door.run() == run


def test_what_lies_beside_the_project_s_file_changes_nothing(door: Door) -> None:
    """Values of ours with a dollar sign are nobody's variables, by hand or in a run, and a run reads our file alone."""
    directory = door.state.root / "project"
    definition = door.definition | {"environment": {"NOTE": "$HOME ${TITANIC_X:-y} ${Z?} $$ {{ x }}"}}
    assert not door.keep(definition=definition).failed
    run, written = door.run(), (directory / "compose.yaml").read_bytes()
    beside = {
        ".env": "HOME=/evil\nTITANIC_X=evil\nNOTE=evil\nHTTP_PROXY=http://127.0.0.1:9\n",
        "compose.override.yaml": "services: {proxy: {environment: {NOTE: evil}, mem_limit: 64m}}\n",
    }
    try:
        (directory / ".env").write_text(beside[".env"])
        # Not as our own runs have it.
        by_hand = dict(os.environ) | {"DOCKER_HOST": f"unix://{door.engine.socket}"}
        command = [door.engine.program, "compose", "up", "--detach"]
        subprocess.run(command, cwd=directory, env=by_hand, check=True, capture_output=True)
        assert not door.keep(definition=definition).changed
        assert door.run() == run

        (directory / ".env").write_text(f"{beside['.env']}COMPOSE_FILE=none.yaml\nCOMPOSE_PROJECT_NAME=other\n")
        (directory / "compose.override.yaml").write_text(beside["compose.override.yaml"])
        assert not door.keep(definition=definition).changed
        assert door.run() == run
        door.engine.run("rm", "--force", run[0])
        assert needed(door.keep(definition=definition)) == ["start"]
        (container,) = door.engine.containers("proxy")
        assert f"NOTE={definition['environment']['NOTE']}" in container["Config"]["Env"]
        assert container["HostConfig"]["Memory"] == 0
        assert (directory / "compose.yaml").read_bytes() == written
    finally:
        for name in beside:
            (directory / name).unlink(missing_ok=True)


def test_proxies_of_the_client_reach_no_container(door: Door, proxied: dict[str, Any]) -> None:
    """Not in a run, not by hand, and not for long where they have reached one."""
    client = DockerClient.of(door.options | proxied)
    directory, file = str(door.state.root / "project"), door.state.root / "project" / "compose.yaml"

    def proxies() -> list[str]:
        (container,) = door.engine.containers("proxy")
        return [entry for entry in container["Config"]["Env"] if "127.0.0.1:9" in entry]

    door.engine.run("rm", "--force", door.run()[0])
    assert needed(door.keep(engine=door.options | proxied)) == ["start"]
    assert proxies() == []
    client.run("compose", "up", "--detach", "--force-recreate", directory=directory)
    assert proxies() == []
    assert not door.keep(engine=door.options | proxied).changed

    # As containers were made before, and with a variable of somebody's.
    text = file.read_text()
    lines = [line for line in text.splitlines() if "_proxy:" not in line.lower()]
    file.write_text("\n".join(lines).replace("environment:", "environment: {NOTE: added}") + "\n")
    client.run("compose", "up", "--detach", directory=directory)
    file.write_text(text)
    assert len(proxies()) == 10
    assert needed(door.keep(check=True)) == needed(door.keep()) == ["start"]
    assert proxies() == []
    assert "NOTE=added" not in door.engine.containers("proxy")[0]["Config"]["Env"]
    assert not door.keep().changed


@pytest.mark.parametrize(
    ("host", "asked"), [("[::1]", "[::1]"), ("::", "[::1]"), ("::", "127.0.0.1"), ("localhost", "127.0.0.1")]
)
def test_it_is_published_at_any_kind_of_address(door: Door, host: str, asked: str) -> None:
    require_ipv6(host)
    port = free_port()
    definition = door.definition | {"ports": published(host, port, 8080)}
    assert not door.keep(definition=definition, answers_at=host_port(host, port)).failed
    assert (answer := try_request(f"{asked}:{port}", "/"))
    assert answer.body == b"one"


def test_what_is_optional_is_offered_and_started_by_people_alone(door: Door) -> None:
    directory, part = door.state.root / "project", {"image": "caddy:2", "definition": {"command": ["sleep", "60"]}}
    one, two = ({"beside": part | {"files": {"note": note}}} for note in ("one", "two"))
    assert door.keep(check=True, optional=one)["steps"] == ["offer the service beside"]
    assert not (directory / "beside").exists()
    run = door.run()
    assert door.keep(optional=one)["steps"] == ["offer the service beside"]
    assert not door.keep(optional=one).changed
    assert (door.run(), door.engine.containers("beside")) == (run, [])
    door.engine.run("compose", "--profile", "beside", "up", "--detach", directory=str(directory))
    (started,) = door.engine.containers("beside")
    assert (started["State"]["Running"], started["HostConfig"]["CapDrop"]) == (True, ["ALL"])

    assert door.keep(optional=two)["steps"] == ["offer the service beside"]
    assert (directory / "beside" / "note").read_text() == "two"
    assert door.keep(check=True, optional={"beside": {}})["steps"] == ["withdraw the service beside"]
    assert len(door.engine.containers("beside")) == 1
    assert door.keep(optional={"beside": {}})["steps"] == ["withdraw the service beside"]
    assert (door.run(), door.engine.containers("beside")) == (run, [])
    assert not (directory / "beside").exists()
    assert not door.keep(optional={"beside": {}}).changed


def test_an_engine_that_does_not_answer_is_named(place: Path) -> None:
    door = Door(place, {"socket": f"{place}/none.sock", "program": "docker", "project": "unit"})
    for check in (True, False):
        message = door.keep(check=check).message
        assert message.startswith(f"proxy: no Docker engine answers at {place}/none.sock")


def test_what_is_withdrawn_takes_no_network_from_what_is_stopped(place: Path, own_engine: dict[str, Any]) -> None:
    """A container that is stopped keeps no network from being removed, and does not start without it."""
    door = Door(place, own_engine)
    beside = {"beside": {"image": "caddy:2", "definition": {"command": ["sleep", "60"], "networks": ["front"]}}}
    other = door.service(name="other", files={}, check_command=[], answers_at=None, volumes={})
    other["definition"] = {"command": ["sleep", "600"], "networks": ["data"], "stop_grace_period": "1s", "init": True}
    assert door.keep().changed
    assert keep_service(door.state.root, own_engine, other | {"optional": beside}).changed
    directory = str(door.state.root / "project")
    door.engine.run("compose", "--profile", "beside", "up", "--detach", "beside", directory=directory)
    door.engine.run("stop", door.run()[0])
    withdrawn = keep_service(door.state.root, own_engine, other | {"optional": {"beside": {}}})
    assert withdrawn["steps"] == ["withdraw the service beside"]
    assert door.engine.containers("beside") == []
    assert needed(door.keep()) == ["start"]
    assert door.answer() == "one"


def play(door: Door, words: str = "one", **options: Any) -> dict[str, Any]:
    """A play that does with the service what roles do."""
    engine = {key: value for key, value in door.options.items() if key != "project"}
    variables = yaml.safe_load((COLLECTION / "roles/titanic_common/vars/main.yml").read_text())
    return {
        "vars": {
            "ansible_python_interpreter": sys.executable,
            "titanic_state_directory": str(door.state.root),
            "titanic_engine": engine,
            "__titanic_common_engine": door.options,
            "__titanic_common_compose_environment": variables["__titanic_common_compose_environment"],
            "__titanic_common_compose_service": door.service(words, **options),
        },
        "tasks": [{"ansible.builtin.include_tasks": str(TASKS)}],
    }


def test_roles_have_it_done_by_docker_compose_v2_and_say_so_once(place: Path, own_engine: dict[str, Any]) -> None:
    """What a role includes: check mode, for real, nothing to do, a changed file, what somebody's environment says."""
    door = Door(place / "door", own_engine)
    # A file is loaded by the program, and Compose has no part in it.
    for words, arguments, counts in (
        ("one", ["--check", "--diff"], "changed=1 .*failed=0 .*skipped=2 "),
        ("one", [], "changed=2 .*failed=0 .*skipped=0 "),
        ("one", [], "changed=0 .*failed=0 .*skipped=2 "),
        ("two", [], "changed=1 .*failed=0 .*skipped=1 "),
    ):
        told = run_ansible(place, play(door, words), *arguments, others=True).stdout
        assert re.search(counts, told), told
        assert bool(door.engine.containers()) == (not arguments)
    assert door.answer() == "two"


def test_the_environment_of_a_run_says_nothing_to_compose(
    place: Path, own_engine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door(place, own_engine)
    for name, value in {
        "COMPOSE_FILE": "/nowhere.yaml",
        "COMPOSE_PROJECT_NAME": "other",
        "COMPOSE_PROFILES": "beside",
        "COMPOSE_REMOVE_ORPHANS": "true",
        "DOCKER_HOST": "unix:///nowhere.sock",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_API_VERSION": "1.99",
    }.items():
        monkeypatch.setenv(name, value)
    stranger = ["--label", f"{PROJECT_LABEL}={door.engine.project}", "--label", f"{SERVICE_LABEL}=stranger"]
    door.engine.run("run", "--detach", *stranger, "caddy:2", "sleep", "600")
    assert door.keep(optional={"beside": {"image": "caddy:2", "definition": {"command": ["sleep", "60"]}}}).changed
    assert door.answer() == "one"
    assert len(door.engine.containers("stranger")) == 1
    assert door.engine.containers("beside") == []
