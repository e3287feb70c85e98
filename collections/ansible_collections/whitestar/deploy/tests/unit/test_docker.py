# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Compose target without an engine: the file that is written, the workload in it, and what is said of an engine."""

from __future__ import annotations

import json
import socketserver
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.filter.workload import workload
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    DockerClient,
    EngineError,
    engine_problems,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.containers import Containers, running_containers
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.definition import (
    HARDENED,
    NETWORKS,
    merged,
    upstreams,
    without_proxies,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.image_build import logged_in
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project, Service, yaml_text
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import api_part, memory
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.host.stop import stop
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import LocalRuntime, command_line
from ansible_collections.whitestar.deploy.plugins.modules.compose_service import calls
from ansible_collections.whitestar.deploy.tests.helpers import (
    GOOD_PLUGINS as GOOD,
)
from ansible_collections.whitestar.deploy.tests.helpers import (
    SERVICE,
    answering,
    client,
    make_image,
)
from ansible_collections.whitestar.deploy.tests.helpers import (
    engine_version as version,
)

SETTINGS: dict[str, Any] = {
    "image": {
        "reference": "titanic@sha256:3f2a",
        "identity": "3f2a9c0d1b7e",
        "description": {"version": "1.0.0", "schema": {"required": "0003", "oldest_tolerated": "0002"}},
    },
    "command": ["tiny", "serve"],
    "port": 8000,
    "replicas": 2,
    "environment": {"TITANIC_WORKERS": 2, "TITANIC_MOTTO": 'it\'s $5 # "sure": ü'},
    "database": {
        "host": "database",
        "port": 5432,
        "name": "titanic",
        "user": "titanic_app",
        "password_file": "/state/secrets/app",
        "owner": "titanic_owner",
        "owner_password_file": "/state/secrets/owner",
    },
    "secret_files": {"database_password": "/state/secrets/app", "write_tokens": "/state/secrets/tokens"},
    "resources": {"memory": "256Mi", "cpu": "0.5"},
    "user": 10001,
    "probes": SERVICE["probes"],
    "promises": SERVICE["promises"],
}


STATE = State(Path("/state"))


NOWHERE = DockerClient("/nowhere/docker.sock", "/nowhere/docker", "people")


def undoubled(value: Any) -> Any:
    """What Compose makes of the text: two dollar signs are one."""
    if isinstance(value, dict):
        return {key: undoubled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [undoubled(item) for item in value]
    return value.replace("$$", "$") if isinstance(value, str) else value


@pytest.mark.parametrize(
    "value",
    [
        {"text": "plain", "number": 5, "fraction": 0.5, "yes": True, "none": None},
        {"a": {"b": {"c": ["x", "y"]}}, "empty": {}, "nothing": []},
        {"words": ["yes", "no", "5", "1.0", "null", "~", "- x", "a: b", "# no comment", "*star", "&and", "!bang", ""]},
        {"list": [{"a": 1, "b": {"c": 2}}, {"d": [1, 2]}], "after": 1},
        {"list": [{}, {"a": 1}], "other": [{"a": 1}, "text", {"b": 2}], "nested": [["a"], ["b", {"c": 1}]]},
        {"list": [{"a": [{"b": [{"c": 1}]}]}]},
        {"text": "line\nbreak\ttab \\ \" ' ü 🚢 \u2028 \x85 \x7f \ufeff"},
        {"on": 1, "yes": 2, "5": 3, "a b": 4, "a: b": 5, "- c": 6, "": 7, "null": 8, "#": 9, "x-y.z/1": 10},
        {"$HOME": "$HOME", "twice": "$$", "reference": "${A:-b}", "list": [{"a$": "a$"}], "flow": ["$1", ["$2"]]},
    ],
    ids=lambda value: next(iter(value)),
)
def test_what_is_written_is_read_back(value: dict[str, Any]) -> None:
    assert undoubled(yaml.safe_load(yaml_text(value))) == value


def test_an_item_that_is_there_twice_is_written_twice() -> None:
    item = {"a": 1}
    assert yaml.safe_load(yaml_text({"list": [item, item]})) == {"list": [item, item]}


def test_compose_takes_no_dollar_for_a_variable() -> None:
    assert yaml_text({"a": "$HOME", "b": ["${X}"]}) == 'a: "$$HOME"\nb: ["$${X}"]\n'


def test_a_proxy_that_is_asked_for_is_set_in_both_spellings() -> None:
    """An empty http_proxy beside HTTP_PROXY takes it away from many programs (Python's urllib.request)."""
    named: Any
    for named in (
        {"HTTP_PROXY": "http://proxy.example:3128", "NOTE": None},
        ["HTTP_PROXY=http://proxy.example:3128", "NOTE"],
    ):
        found = without_proxies(named)
        assert (found["HTTP_PROXY"], found["NOTE"]) == ("http://proxy.example:3128", None)
        assert found["http_proxy"] == found["HTTP_PROXY"]
        assert (found["https_proxy"], found["NO_PROXY"]) == ("", "")


def test_builds_that_push_get_the_proxies_of_the_usual_configuration(place: Path) -> None:
    (place / "config.json").write_text('{"proxies": {"default": {"httpProxy": "http://proxy.example"}}, "auths": {}}')
    engine = DockerClient("/nowhere", client(place, *GOOD), "people", str(place))
    with logged_in(engine, "registry.example/people", {"username": "alice", "password": "secret"}) as pusher:
        written = json.loads(Path(pusher.configuration, "config.json").read_text())
    assert written == {"proxies": {"default": {"httpProxy": "http://proxy.example"}}}


def test_mappings_are_merged_and_all_else_is_replaced() -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "list": [1, 2], "e": 3}
    before = json.dumps(base)
    over = {"a": {"c": {"x": 9}}, "list": [3], "e": {"f": 1}, "new": 0}
    expected = {"a": {"b": 1, "c": {"d": 2, "x": 9}}, "list": [3], "e": {"f": 1}, "new": 0}
    assert merged(base, over) == expected
    assert json.dumps(base) == before


def test_every_replica_of_both_colours_is_behind_the_reverse_proxy() -> None:
    assert upstreams("people", 2, 8000) == [
        "people-api-blue-1:8000",
        "people-api-blue-2:8000",
        "people-api-green-1:8000",
        "people-api-green-2:8000",
    ]


@pytest.mark.parametrize(("limit", "words"), [("256Mi", "256m"), ("1Gi", "1g"), ("512m", "512m")])
def test_memory_is_written_as_compose_writes_it(limit: str, words: str) -> None:
    assert memory({"resources": {"memory": limit}}) == words


def test_the_workload_as_a_service() -> None:
    built = workload(SETTINGS)
    part = api_part(built, "green", STATE, 25)
    (service,) = part["services"].values()
    assert list(part["services"]) == ["api-green"]
    assert service["image"] == "titanic@sha256:3f2a"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "10001:10001"
    assert (service["mem_limit"], service["cpus"], service["pids_limit"]) == ("256m", 0.5, 200)
    assert (service["scale"], service["init"], service["restart"]) == (2, True, "unless-stopped")
    assert service["stop_grace_period"] == "25s"
    assert set(service["networks"]) == set(NETWORKS)
    assert NETWORKS["data"] == {"internal": True}
    assert "ports" not in service
    # The file that makes a colour unready is made outside and seen inside.
    mount, shared = service["volumes"]
    assert (shared["target"], shared["source"].endswith("/run/counts")) == ("/run/titanic-counts", True)
    assert service["environment"]["TITANIC_COUNTS_FILE"] == "/run/titanic-counts/requests"
    inside = Path(service["environment"]["TITANIC_DRAIN_FILE"])
    assert Path(mount["source"], inside.relative_to(mount["target"])) == STATE.drain_file("green")
    assert mount["read_only"] is True


def test_secrets_have_the_same_paths_inside_as_outside() -> None:
    part = api_part(workload(SETTINGS), "blue", STATE, 25)
    inside = {entry["source"]: entry["target"] for entry in part["services"]["api-blue"]["secrets"]}
    outside = {name: secret["file"] for name, secret in part["secrets"].items()}
    assert inside == outside == SETTINGS["secret_files"]
    assert part["services"]["api-blue"]["environment"]["TITANIC_DATABASE_PASSWORD_FILE"] in inside.values()
    assert "/state/secrets/owner" not in json.dumps(part)


def test_overrides_are_laid_on_recursively_and_make_another_release() -> None:
    over = {"environment": {"EXTRA": "1"}, "mem_limit": "1g", "logging": {"options": {"max-file": "9"}}}
    plain, changed = workload(SETTINGS), workload(SETTINGS | {"overrides": over})
    assert changed["release"] != plain["release"]
    service = api_part(changed, "blue", STATE, 25)["services"]["api-blue"]
    assert service["mem_limit"] == "1g"
    assert service["environment"]["EXTRA"] == "1"
    assert service["environment"]["TITANIC_WORKERS"] == "2"
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "9"}}
    assert HARDENED["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_one_workload_is_a_process_here_and_a_service_there(state: State) -> None:
    """The same dictionary gives both their command, and every variable but the three that say where."""
    own = {"TITANIC_BIND", "TITANIC_DRAIN_FILE", "TITANIC_METRICS_DIRECTORY"}
    proxies = set(without_proxies({}))
    image = make_image(state, "3f2a9c0d1b7e")
    built = workload(SETTINGS | {"image": SETTINGS["image"] | {"reference": str(image)}, "replicas": 1})
    state.run.mkdir()
    state.logs.mkdir()
    colours = LocalRuntime(state).colours(built, "", 10, 1)
    colours.start("blue")
    colours.wait_until_ready("blue")
    process = state.daemon("blue").process()
    assert process is not None
    seen = [Path(f"/proc/{process.pid}/{name}").read_text().split("\0") for name in ("cmdline", "environ")]
    command, variables = seen[0], dict(line.split("=", 1) for line in seen[1] if line)
    service = api_part(built, "blue", state, 25)["services"]["api-blue"]
    expected = command_line(str(image), service["command"])
    assert command[-len(expected) - 1 : -1] == expected
    shared = {name: value for name, value in service["environment"].items() if name not in own | proxies}
    assert shared.items() <= variables.items()
    assert {name for name in variables if name.startswith("TITANIC_")} == set(shared) | own
    assert set(service["environment"]) == set(shared) | own | proxies


def test_the_project_s_file_is_made_of_its_parts(place: Path) -> None:
    project = Project(place / "project", NOWHERE)
    part = api_part(workload(SETTINGS), "blue", STATE, 25)
    project.write("api-blue", part)
    project.write("cache", {"services": {"cache": {"image": "x"}}, "volumes": {"cache": {}}})
    found = yaml.safe_load(project.file.read_text())
    assert set(found) == {"name", "services", "networks", "volumes", "secrets"}
    assert found["name"] == "people"
    assert undoubled(found["services"]["api-blue"]) == part["services"]["api-blue"]
    assert found["networks"] == NETWORKS
    assert found["volumes"] == {"cache": {}}
    assert project.part("api-blue") == part
    project.write("api-blue", {})
    found = yaml.safe_load(project.file.read_text())
    assert list(found["services"]) == ["cache"]
    assert "secrets" not in found
    assert project.part("api-blue") == {}


def test_another_definition_has_another_hash_and_other_files_do_not() -> None:
    def made(definition: dict[str, Any], files: dict[str, str]) -> Service:
        options = {"definition": definition, "secret_files": {"key": "/key"}, "files": files}
        return Service(Project(Path("/project"), NOWHERE), "proxy", "caddy", options)

    first = made({"command": ["run"], "logging": {"options": {"max-file": "1"}}}, {})
    assert made({"command": ["run"], "logging": {"options": {"max-file": "1"}}}, {"a": "b"}).hash == first.hash
    assert made({"command": ["other"]}, {}).hash != first.hash
    service = first.part["services"]["proxy"]
    assert service["cap_drop"] == ["ALL"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "1"}
    assert service["secrets"] == [{"source": "key", "target": "/key"}]
    assert first.part["secrets"] == {"key": {"file": "/key"}}


@pytest.mark.parametrize(
    ("needed", "state"),
    [([], ""), (["write"], ""), (["write", "reload"], ""), (["write", "start"], "present"), (["restart"], "restarted")],
)
def test_compose_is_told_to_start_or_restart_one_service_or_nothing(needed: list[str], state: str) -> None:
    engine = DockerClient("/nowhere/docker.sock", "/nowhere/docker", "people", planned=True)
    service = Service(Project(Path("/project"), engine), "proxy", "caddy", {"definition": {}})
    one = {"state": state, "services": ["proxy"], "recreate": "auto", "profiles": [], "scale": {}}
    # Of the other there is no container, which only people start.
    assert list(calls(service, needed, ["pgadmin"])) == ([one] if state else [])


def test_an_engine_that_does_not_answer_is_all_that_is_said(place: Path) -> None:
    (problem,) = engine_problems(DockerClient(f"{place}/docker.sock", "/nowhere/docker", "people"))
    said = f"titanic_engine: no Docker engine answers at {place}/docker.sock (No such file or directory)"
    assert problem.startswith(f"{said}. Start it, name its socket, or ")


def test_a_new_engine_with_its_plugins_is_fine(place: Path) -> None:
    with answering(place, version("28.2.2")) as path:
        assert engine_problems(DockerClient(path, client(place, *GOOD), "people")) == []


@pytest.mark.parametrize(
    ("engine", "compose", "buildx", "words"),
    [
        ("24.0.7", *GOOD, "the engine is 24.0.7. Install Docker 25.0 or later"),
        ("26.1.5", "echo v2.19.0", GOOD[1], "Compose is v2.19.0. Install 2.20 or later"),
        ("26.1.5", "echo 1.29.2", GOOD[1], "Compose is 1.29.2. Install 2.20 or later"),
        ("26.1.5", GOOD[0], "echo github.com/docker/buildx v0.9.1 abc", "buildx v0.9.1 abc. Install 0.12 or later"),
        ("26.1.5", "echo 'unknown command' >&2; exit 1", GOOD[1], "unknown command). Install docker-compose-plugin"),
        ("26.1.5", GOOD[0], "exit 125", "has no working Buildx plugin"),
    ],
)
def test_what_is_too_old_or_missing_is_named(place: Path, engine: str, compose: str, buildx: str, words: str) -> None:
    with answering(place, version(engine)) as path:
        (problem,) = engine_problems(DockerClient(path, client(place, compose, buildx), "people"))
    assert problem.startswith("titanic_engine: ")
    assert words in problem


def test_a_client_that_is_not_there_is_named(place: Path) -> None:
    with answering(place, version("26.1.5")) as path:
        problems = engine_problems(DockerClient(path, "/nowhere/docker", "people"))
    assert len(problems) == 2
    assert all("/nowhere/docker cannot be run (No such file or directory)" in problem for problem in problems)


def test_what_is_no_engine_is_told_from_one(place: Path) -> None:
    with answering(place, lambda _path: (500, b"broken")) as path, pytest.raises(EngineError, match=r"500 .*: broken"):
        DockerClient(path, "docker", "people").containers()
    (place / "engine.sock").unlink()
    with answering(place, lambda _path: (404, b"")) as path:
        assert DockerClient(path, "docker", "people").image("none") is None
    (place / "engine.sock").unlink()

    class Mute(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(100)
            self.request.sendall(b"220 mail.example\r\n")

    with socketserver.UnixStreamServer(str(place / "engine.sock"), Mute) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        (problem,) = engine_problems(DockerClient(str(place / "engine.sock"), "docker", "people"))
        thread.join()
    assert "no Docker engine answers at" in problem


def test_a_client_that_hangs_is_ended(place: Path) -> None:
    program = client(place, "sleep 60", "exit 0")
    with pytest.raises(EngineError, match=r"docker compose ps took longer than 0.2 s"):
        DockerClient("/nowhere", program, "people").run("compose", "ps", seconds=0.2)


def test_the_client_gets_our_engine_whatever_the_user_has_set(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "DOCKER_HOST",
        "COMPOSE_FILE",
        "BUILDX_BUILDER",
        "BUILDKIT_HOST",
        "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY",
    ):
        monkeypatch.setenv(name, "the user's")
    said = DockerClient("/our/socket", client(place, "env", "true"), "people", "/our/plugins").run("compose")
    assert "DOCKER_HOST=unix:///our/socket" in said
    assert "DOCKER_CONFIG=/our/plugins" in said
    assert "the user's" not in said


def test_nothing_runs_on_an_engine_that_is_yet_to_be_installed(place: Path) -> None:
    options = {"socket": "/nowhere/docker.sock", "program": "/nowhere/docker", "project": "people", "planned": True}
    parts = Containers(State(place), {"engine": options})
    assert (parts.listed(), parts.running(), parts.missing(), parts.serves()) == ({}, [], [], False)
    assert stop(parts, "alice@laptop", 1, check=True) == ["record that it is stopped"]
    assert running_containers(parts.engine) == {}


def test_a_command_that_is_followed_tells_each_line_and_fails_as_any_other(tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho ignored\necho one >&2\necho two >&2\n[ $1 = good ] || exit 3\n")
    program.chmod(0o755)
    engine, told = DockerClient("/nowhere", str(program), "titanic"), list[str]()
    assert engine.follow(["good"], 60, told.append) == "one\ntwo\n"
    assert told == ["one\n", "two\n"]
    with pytest.raises(EngineError, match=r"docker bad failed \(3\): one\ntwo"):
        engine.follow(["bad"], 60, told.append)
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(EngineError, match=r"docker bad took longer than 0.1 s"):
        engine.follow(["bad"], 0.1, told.append)
    with pytest.raises(EngineError, match="cannot be run"):
        DockerClient("/nowhere", str(tmp_path / "none"), "titanic").follow(["good"], 60, told.append)
