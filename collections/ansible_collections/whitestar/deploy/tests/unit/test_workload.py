# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload is one value with one name for one input, and holds nothing that the serving program must not have."""

from __future__ import annotations

import copy
import getpass
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.whitestar.deploy.plugins.filter.workload import (
    database_environment,
    database_secret_files,
    identity_text,
    reverse_proxy,
    run_identity,
    run_kind,
    server_arguments,
    state_directory,
    summary,
    validate_environment,
    workload,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Process
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import command_line
from ansible_collections.whitestar.deploy.tests.helpers import SERVICE

CONNECTION = {
    "host": "/state/database/run",
    "port": 5432,
    "name": "titanic",
    "user": "titanic_app",
    "password_file": "/state/secrets/app",
    "owner": "titanic_owner",
    "owner_password_file": "/state/secrets/owner",
}
SETTINGS: dict[str, Any] = {
    "image": {
        "reference": "/state/images/3f2a9c0d1b7e",
        "identity": "3f2a9c0d1b7e",
        "description": {"version": "1.0.0", "schema": {"required": "0003", "oldest_tolerated": "0002"}},
    },
    "command": ["titanic-api", "serve"],
    "port": 8000,
    "replicas": 1,
    "environment": {"TITANIC_WORKERS": 2},
    "database": CONNECTION,
    "secret_files": {"database_password": "/state/secrets/app"},
    "resources": {"memory": "256Mi"},
    "user": 10001,
    "probes": SERVICE["probes"],
    "promises": SERVICE["promises"],
}


def changed(**settings: Any) -> dict[str, Any]:
    return workload(copy.deepcopy(SETTINGS) | settings)


def test_the_same_input_is_the_same_release() -> None:
    assert workload(copy.deepcopy(SETTINGS)) == workload(copy.deepcopy(SETTINGS))
    shuffled = dict(reversed(list(copy.deepcopy(SETTINGS).items())))
    assert workload(shuffled)["release"] == workload(SETTINGS)["release"]


def test_a_release_names_image_and_configuration() -> None:
    built = workload(SETTINGS)
    assert built["release"] == f"3f2a9c0d1b7e-{built['config'][:6]}"
    assert built["environment"]["TITANIC_RELEASE"] == built["release"]
    assert built["image_facts"] == {"identity": "3f2a9c0d1b7e"} | SETTINGS["image"]["description"]


@pytest.mark.parametrize(
    "change",
    [
        {"environment": {"TITANIC_WORKERS": 3}},
        {"environment": {"TITANIC_WORKERS": 2, "TITANIC_LOG_LEVEL": "debug"}},
        {"command": ["titanic-api", "serve", "--more"]},
        {"port": 8001},
        {"replicas": 2},
        {"user": 10002},
        {"resources": {"memory": "512Mi"}},
        {"secret_files": {}},
        {"database": CONNECTION | {"host": "elsewhere"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_configuration_is_another_release(change: dict[str, Any]) -> None:
    assert changed(**change)["release"] != workload(SETTINGS)["release"]
    assert changed(**change)["release"].startswith("3f2a9c0d1b7e-")


def test_another_image_is_another_release_with_the_same_configuration() -> None:
    other = changed(image=SETTINGS["image"] | {"identity": "aaaaaaaaaaaa"})
    assert other["release"] != workload(SETTINGS)["release"]
    assert other["config"] == workload(SETTINGS)["config"]


def test_a_description_that_is_not_known_yet_does_not_change_the_release() -> None:
    unbuilt = changed(image=SETTINGS["image"] | {"description": {}})
    assert unbuilt["release"] == workload(SETTINGS)["release"]


def test_the_serving_program_does_not_get_the_owner() -> None:
    text = json.dumps(workload(SETTINGS))
    assert "owner" not in text.lower()
    assert "/state/secrets/app" in text


def test_the_owner_s_password_is_no_part_of_the_release() -> None:
    other = changed(database=CONNECTION | {"owner_password_file": "/elsewhere", "owner": "another"})
    assert other == workload(SETTINGS)


def test_the_environment_is_text() -> None:
    values = workload(SETTINGS)["environment"]
    assert values["TITANIC_WORKERS"] == "2"
    assert values["TITANIC_DATABASE_PORT"] == "5432"
    assert all(isinstance(value, str) for value in values.values())


def test_the_input_is_left_alone() -> None:
    before = copy.deepcopy(SETTINGS)
    workload(SETTINGS)
    assert before == SETTINGS


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_a_missing_setting_is_named(key: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"lack '{key}'"):
        workload({name: value for name, value in SETTINGS.items() if name != key})


@pytest.mark.parametrize(
    "description", [{"version": "1"}, {"schema": {}}, {"version": "1", "schema": {"required": "1"}}]
)
def test_a_release_that_does_not_say_what_it_is_is_refused(description: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match=r"lack '(version|schema|required|oldest_tolerated)'"):
        changed(image=SETTINGS["image"] | {"description": description})


def test_a_command_is_taken_from_the_image() -> None:
    built = workload(SETTINGS)
    assert command_line(built["image"], built["command"]) == ["/state/images/3f2a9c0d1b7e/bin/titanic-api", "serve"]


def test_a_connection_becomes_the_service_s_variables() -> None:
    assert database_environment(CONNECTION) == {
        "TITANIC_DATABASE_HOST": "/state/database/run",
        "TITANIC_DATABASE_PORT": "5432",
        "TITANIC_DATABASE_NAME": "titanic",
        "TITANIC_DATABASE_USER": "titanic_app",
        "TITANIC_DATABASE_PASSWORD_FILE": "/state/secrets/app",
        "TITANIC_DATABASE_OWNER": "titanic_owner",
        "TITANIC_DATABASE_OWNER_PASSWORD_FILE": "/state/secrets/owner",
    }
    assert database_environment({"host": "db", "sslmode": "verify-full", "sslrootcert": "/ca"}) == {
        "TITANIC_DATABASE_HOST": "db",
        "TITANIC_DATABASE_SSLMODE": "verify-full",
        "TITANIC_DATABASE_SSLROOTCERT": "/ca",
    }


def test_the_passwords_that_a_connection_names_are_files() -> None:
    assert database_secret_files(CONNECTION) == {"app": "/state/secrets/app", "owner": "/state/secrets/owner"}
    assert database_secret_files({"host": "db", "owner": "titanic_owner"}) == {}


def test_the_server_s_settings_become_its_arguments() -> None:
    settings = {"work_mem": "8MB", "max_connections": 40, "log_line_prefix": "%m = %u "}
    expected = ["--log_line_prefix=%m = %u ", "--max_connections=40", "--work_mem=8MB"]
    assert server_arguments(settings) == expected
    assert server_arguments({}) == []


def test_unknown_keys_of_a_connection_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="unknown keys: passwort, prot"):
        database_environment({"host": "db", "prot": 1, "passwort": "x"})


def test_a_run_is_known_by_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TITANIC_USER", raising=False)
    identity = run_identity("ignored")
    assert identity["host"] == socket.gethostname()
    assert identity["user"] == getpass.getuser()
    assert Process.of(identity["pid"]) == Process(identity["pid"], identity["started"])
    assert identity_text(identity) == f"{getpass.getuser()}@{socket.gethostname()}"
    monkeypatch.setenv("TITANIC_USER", "somebody")
    assert run_identity("ignored")["user"] == "somebody"


def test_the_state_lies_where_the_system_has_such_things(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        assert state_directory("titanic") == "/var/lib/titanic"
        return
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert state_directory("titanic") == "/somewhere/titanic"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert state_directory("titanic") == str(Path.home() / ".local/state/titanic")


ASKED = {"items": {"/people": 887}, "kept": ["one", "two"]}


def test_the_summary_says_what_was_done() -> None:
    actions = {
        "release": "deployed",
        "before": "r1",
        "schema": {"from": None, "to": "0003", "changed": True},
        "seed": {"inserted": 887, "updated": 0, "unchanged": 0},
    }
    assert summary(ASKED, "http://127.0.0.1:5000", "r2", actions) == [
        "release r2 serves instead of r1",
        "schema 0003, migrated from nothing",
        "seed: 887 inserted, 0 updated, 0 unchanged",
        "887 people at http://127.0.0.1:5000/people",
        "2 promises asked, all kept",
        "next: open http://127.0.0.1:5000/ in a browser, look with --tags status, go back to r1 with --tags rollback",
    ]


@pytest.mark.parametrize(
    ("actions", "back"),
    [
        ({"before": "", "rollback_to": ""}, ""),
        ({"before": "r2", "rollback_to": ""}, ""),
        ({"before": "r2", "rollback_to": "r1"}, ", go back to r1 with --tags rollback"),
        ({"before": "r3", "rollback_to": "r2"}, ", go back to r3 with --tags rollback"),
    ],
    ids=["first run", "only release", "nothing new", "after a rollback"],
)
def test_the_summary_names_the_release_to_go_back_to(actions: dict[str, Any], back: str) -> None:
    said = summary(ASKED, "http://a:1", "r2", {"release": "deployed", **actions})
    assert said[-1] == f"next: open http://a:1/ in a browser, look with --tags status{back}"


NAMES = ["TITANIC_BIND", "TITANIC_POOL_SIZE"]


def test_an_image_takes_what_its_settings_name_and_what_is_not_its_own() -> None:
    image = {"reference": "r", "description": {"settings": NAMES}}
    assert validate_environment(image, {"TITANIC_POOL_SIZE": 4, "TZ": "UTC", "HTTP_PROXY": ""}) is image
    assert validate_environment({"description": {}}, {"TITANIC_POOL_SISE": 4}) == {"description": {}}, "it has not told"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("TITANIC_POOL_SISE", "Did you mean TITANIC_POOL_SIZE?"),
        ("TITANIC_QQQQQQQQQQ", "It has TITANIC_BIND, TITANIC_POOL_SIZE"),
        ("TITANIC_BINDE", "Did you mean TITANIC_BIND?"),
        ("TITANIC_pool_size", "It has TITANIC_BIND, TITANIC_POOL_SIZE"),
    ],
)
def test_a_setting_that_the_release_has_not_is_refused(name: str, remedy: str) -> None:
    with pytest.raises(AnsibleFilterError) as refused:
        validate_environment({"description": {"settings": NAMES}}, {"TITANIC_POOL_SIZE": 4, name: 4})
    assert str(refused.value) == f"titanic_api_environment: {name} is no setting of this release. {remedy}"


# As the service prints them, and one that a later release might have.
RULES = {
    "TITANIC_POOL_SIZE": {"type": "integer", "least": 1, "most": 64, "unit": "connections"},
    "TITANIC_WAIT": {"type": "number", "least": 0.5, "most": 60, "unit": "seconds"},
    "TITANIC_LEVEL": {"type": "choice", "choices": ["debug", "info"]},
    "TITANIC_BIND": {"type": "address"},
}


def test_values_that_keep_the_rules_of_a_release_are_taken() -> None:
    image = {"description": {"settings": sorted(RULES), "rules": RULES}}
    kept = {"TITANIC_POOL_SIZE": "4", "TITANIC_WAIT": 1.5, "TITANIC_LEVEL": "info", "TITANIC_BIND": "?", "TZ": "four"}
    assert validate_environment(image, kept) is image


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TITANIC_POOL_SIZE", "four", "must be 1 to 64 connections, not 'four'"),
        ("TITANIC_POOL_SIZE", 65, "must be 1 to 64 connections, not 65"),
        ("TITANIC_POOL_SIZE", 4.5, "must be 1 to 64 connections, not 4.5"),
        ("TITANIC_POOL_SIZE", "", "must be 1 to 64 connections, not ''"),
        ("TITANIC_WAIT", "nan", "must be 0.5 to 60 seconds, not 'nan'"),
        ("TITANIC_LEVEL", "loud", "must be one of debug, info, not 'loud'"),
    ],
)
def test_a_value_that_the_release_cannot_use_is_refused(name: str, value: object, said: str) -> None:
    with pytest.raises(AnsibleFilterError) as refused:
        validate_environment({"description": {"settings": sorted(RULES), "rules": RULES}}, {name: value})
    assert str(refused.value) == f"titanic_api_environment: {name} {said}"


@pytest.mark.parametrize(
    ("actions", "line"),
    [
        ({"release": "none"}, "no new release: r serves already"),
        ({"release": "awaited"}, "no new release: r serves already, all its pods are ready now"),
        ({"release": "restarted"}, "release r was not running and serves again"),
        ({"release": "resumed"}, "release r serves; a deployment that was cut off is finished"),
        ({"release": "deployed", "before": ""}, "release r serves"),
        ({}, "release r serves"),
    ],
)
def test_the_summary_names_each_outcome(actions: dict[str, Any], line: str) -> None:
    assert summary(ASKED, "http://a:1", "r", actions)[0] == line


def test_the_summary_of_a_check_promises_nothing() -> None:
    lines = summary({"items": {}, "kept": []}, "http://a:1", "r", {"schema": {}, "seed": {}})
    assert lines[:2] == ["release r serves", "http://a:1"]
    assert not any("promises" in line or "people" in line for line in lines)


@pytest.mark.parametrize(
    ("actions", "lines"),
    [
        (
            {"release": "none", "schema": {"changed": False}, "seed": {"changed": False}},
            ["no new release: r serves already"],
        ),
        (
            {
                "release": "deployed",
                "before": "r0",
                "schema": {"changed": True, "from": None, "to": "0003"},
                "seed": {"changed": True, "inserted": 2, "updated": 1},
            },
            [
                "release r would serve instead of r0",
                "schema would be migrated from nothing to 0003",
                "seed: 2 would be inserted, 1 updated",
            ],
        ),
        (
            {"release": "deployed"},
            ["release r would serve", "what the release migrates and seeds it can say once it is built"],
        ),
        (
            {"release": "awaited"},
            ["no new release: r serves already, its pods that are not ready would be waited for"],
        ),
        ({"release": "restarted"}, ["release r is not running and would serve again"]),
        ({}, ["release r is the last that was deployed"]),
    ],
)
def test_check_mode_says_what_would_be(actions: dict[str, Any], lines: list[str]) -> None:
    said = summary({"check_mode": True, "kept": [], "items": {}}, "http://a:1", "r", actions)
    assert said == [*lines, "nothing was changed, and no promise was asked", "next: run it without --check"]


def proxy(**settings: Any) -> dict[str, Any]:
    """How a reverse proxy with these settings is reached."""
    usual = {"provider": "local", "address": "127.0.0.1", "port": "5000", "hostname": "api.example.org", "tls": "none"}
    return reverse_proxy({**usual, "given": {}, "state_directory": "/state", **settings})


def test_a_plain_reverse_proxy_is_asked_by_its_address() -> None:
    assert proxy() == {
        "address": "127.0.0.1:5000",
        "url": "http://127.0.0.1:5000",
        "host": "",
        "tls": {},
        "files": {},
    }
    assert proxy(address="::1", port=80)["url"] == "http://[::1]:80"


@pytest.mark.parametrize(
    ("settings", "url", "authority", "files"),
    [
        ({"tls": "given"}, "https://api.example.org:5000", "/state/secrets/tls/certificate", ["certificate", "key"]),
        (
            {"tls": "given", "port": "443"},
            "https://api.example.org",
            "/state/secrets/tls/certificate",
            ["certificate", "key"],
        ),
        (
            {"tls": "internal", "given": {}},
            "https://api.example.org:5000",
            "/state/front/caddy/pki/authorities/local/root.crt",
            [],
        ),
        (
            {"tls": "acme", "given": {"authority": "PEM"}},
            "https://api.example.org:5000",
            "/state/secrets/tls/authority",
            ["authority"],
        ),
        ({"tls": "acme", "given": {}}, "https://api.example.org:5000", "", []),
    ],
)
def test_a_host_with_a_certificate_is_asked_by_its_name(
    settings: dict[str, Any], url: str, authority: str, files: list[str]
) -> None:
    found = proxy(**{"given": {"certificate": "PEM", "key": "KEY"}, **settings})
    assert found["url"] == url
    assert found["host"] == ""
    assert found["tls"] == {"hostname": "api.example.org", "authority": authority}
    assert found["files"] == {name: f"/state/secrets/tls/{name}" for name in files}


def test_a_cluster_is_asked_by_name_at_any_address_and_trusts_what_is_given_as_text() -> None:
    found = proxy(provider="kubernetes", address="10.0.0.2", port=80)
    assert (found["address"], found["url"], found["host"]) == (
        "10.0.0.2:80",
        "http://api.example.org",
        "api.example.org",
    )
    given = proxy(provider="kubernetes", tls="given", given={"certificate": "PEM", "key": "KEY"})
    assert given["tls"] == {"hostname": "api.example.org", "authority": "PEM"}
    assert given["files"] == {}
    assert "KEY" not in str(given)


@pytest.mark.parametrize(
    ("tags", "skipped", "kinds"),
    [
        (["all"], [], ["deploys"]),
        (["all"], ["secrets"], ["deploys", "continues"]),
        (["api"], [], ["deploys", "continues", "needs_running"]),
        (["secrets", "api"], [], ["deploys", "needs_running"]),
        (["secrets", "api"], ["secrets"], ["deploys", "continues", "needs_running"]),
        (["database"], [], ["deploys", "continues"]),
        (["target"], [], ["deploys"]),
        (["seed"], [], ["continues", "needs_running"]),
        (["verify", "start"], [], ["continues"]),
        (["rollback"], [], ["needs_running"]),
        (["rollback", "status"], [], ["needs_running"]),
        (["status", "drift"], [], ["reads"]),
        (["stop"], [], []),
        (["teardown"], [], []),
        (["maintenance"], [], ["continues", "needs_running"]),
        (["rotate"], [], ["continues", "needs_running", "rotates"]),
    ],
)
def test_a_run_of_the_site_is_what_its_tags_make_it(tags: list[str], skipped: list[str], kinds: list[str]) -> None:
    assert run_kind(tags, skipped) == kinds


@pytest.mark.parametrize(
    ("tags", "skipped", "installs"),
    [(["all"], [], True), (["target"], [], True), (["all"], ["target"], False), (["api"], [], False)],
)
def test_a_run_that_comes_by_the_target_installs_the_engine(
    tags: list[str], skipped: list[str], *, installs: bool
) -> None:
    assert ("installs_engine" in run_kind(tags, skipped, installs_engine=True)) is installs
    assert "installs_engine" not in run_kind(tags, skipped)
