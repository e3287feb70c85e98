# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stages of a run say of themselves, and what stays out of the summary."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.filter.workload import summary
from ansible_collections.whitestar.deploy.plugins.plugin_utils import run_report
from ansible_collections.whitestar.deploy.plugins.plugin_utils.run_report import (
    COLLECTION,
    RunReport,
    Stage,
    TaskFacts,
    error_lines,
    stage_name,
    text_lines,
)
from ansible_collections.whitestar.deploy.tests.helpers import COLLECTION as COLLECTION_DIRECTORY

RELEASE = "3f2a9c0d1b7e-51aa02"
SEED = {"inserted": 0, "updated": 0, "unchanged": 887, "total": 887, "sha256": "abc", "changed": False}


def did(module: str, result: dict[str, Any], *, role: str = "api", check: bool = False) -> list[str]:
    """What a stage says after one task."""
    report, stage = RunReport(), Stage("Stage", "role", 0, 1)
    task = TaskFacts(module, f"{COLLECTION}titanic_{role}", f"{COLLECTION}titanic_{role} : {role} | Keep it", check)
    report.record("here", stage, task, result, "changed" if result.get("changed") else "ok")
    return stage.did


def test_what_kubernetes_core_applied_is_told_by_the_plan_of_it() -> None:
    report, stage = RunReport(), Stage("Api", "role", 0, 1)
    role, changed = f"{COLLECTION}titanic_api", {"changed": True}
    for action, result in (
        (f"{COLLECTION}kubernetes_objects", {"steps": ["make Service titanic-api"]} | changed),
        ("kubernetes.core.k8s", changed),
        ("ansible.builtin.file", changed),
    ):
        report.record("here", stage, TaskFacts(action, role, "common | Apply the objects"), result, "changed")
    assert stage.did == ["make Service titanic-api", "Apply the objects"], "the last is of a task that told nothing"


def test_what_docker_compose_v2_applied_is_told_by_the_plan_of_it() -> None:
    report, stage = RunReport(), Stage("Database", "role", 0, 1)
    planned = {"steps": ["write the service database", "start the service database"], "changed": True}
    for action, result in (
        (f"{COLLECTION}compose_service", planned),
        ("community.docker.docker_compose_v2", {"changed": True}),
        (f"{COLLECTION}compose_service", {"steps": [], "changed": False}),
    ):
        facts = TaskFacts(action, f"{COLLECTION}titanic_database", "common | Apply the service")
        report.record("here", stage, facts, result, "changed" if result["changed"] else "ok")
    assert stage.did == planned["steps"]


@pytest.mark.parametrize(
    ("module", "result", "words"),
    [
        ("host_release", {"action": "none", "release": RELEASE}, [f"{RELEASE} serves already"]),
        ("kubernetes_release", {"action": "deployed", "release": RELEASE, "changed": True}, [f"deployed {RELEASE}"]),
        ("host_command", {"answer": {"from": None, "to": "2", "changed": True}}, ["migrated from nothing to 2"]),
        ("kubernetes_command", {"answer": {"from": "2", "to": "2", "changed": False}}, ["at 2"]),
        ("host_command", {"answer": SEED}, ["0 inserted, 0 updated, 887 unchanged"]),
        ("host_command", {"answer": {}, "changed": True}, ["Keep it"]),
        (
            "host_command",
            {"answer": {}, "changed": True, "msg": "would run: x is missing"},
            ["would run: x is missing"],
        ),
        ("http_checks", {"kept": ["a", "b"]}, ["2 promises kept"]),
        (
            "local_database",
            {"steps": ["make the cluster", "start PostgreSQL"], "changed": True},
            ["make the cluster", "start PostgreSQL"],
        ),
        ("local_database", {"steps": []}, []),
        ("local_daemon", {"steps": ["write", "start"], "changed": True}, ["Keep it: write, start"]),
        ("local_venv_release", {"image": {"identity": "3f2a"}, "changed": True}, ["Keep it"]),
    ],
)
def test_what_modules_of_the_collection_did(module: str, result: dict[str, Any], words: list[str]) -> None:
    assert did(f"{COLLECTION}{module}", result) == words


def test_an_image_is_told_by_its_identity() -> None:
    image = {"image": {"identity": "3f2a", "description": {"version": "1"}}}
    module = f"{COLLECTION}compose_image"
    assert did(module, image, role="image") == ["3f2a is there"]
    assert did(module, image | {"changed": True}, role="image") == ["built 3f2a"]
    assert did(module, image | {"changed": True}, role="image", check=True) == ["would build 3f2a"]


def test_a_message_does_not_say_again_what_was_done() -> None:
    stage = Stage("Stop", "role", 0, 1, did=["stop caddy"])
    RunReport().say("here", stage, ["stop caddy", "data are kept"], inline=False)
    assert stage.messages == ["data are kept"]


def test_a_rollback_goes_back() -> None:
    deployed = {"action": "deployed", "release": RELEASE, "changed": True}
    module = f"{COLLECTION}host_release"
    assert did(module, deployed, role="rollback") == [f"went back to {RELEASE}"]
    assert did(module, deployed, role="rollback", check=True) == [f"would go back to {RELEASE}"]
    assert did(module, deployed | {"action": "none"}, role="rollback") == [f"{RELEASE} serves already"]


def test_check_mode_says_what_would_be() -> None:
    deployed = {"action": "deployed", "release": RELEASE, "changed": True}
    assert did(f"{COLLECTION}host_release", deployed, check=True) == [f"would deploy {RELEASE}"]
    migrated = {"answer": {"from": "1", "to": "2", "changed": True}}
    assert did(f"{COLLECTION}host_command", migrated, check=True) == ["would migrate from 1 to 2"]


def test_of_other_modules_only_the_task_s_name_is_told() -> None:
    result = {"action": "deployed", "release": "theirs", "steps": ["a secret"], "answer": {"to": "x"}, "kept": ["y"]}
    assert did("ansible.builtin.command", result) == []
    assert did("ansible.builtin.command", result | {"changed": True}) == ["Keep it"]


def test_steps_of_hidden_results_are_those_that_the_role_gives_back() -> None:
    report, stage = RunReport(), Stage("Secrets", "role", 0, 1)
    hidden = {"censored": "the output has been hidden", "changed": True}
    report.record(
        "here", stage, TaskFacts(f"{COLLECTION}host_secrets", "role", "secrets | Keep the files"), hidden, "changed"
    )
    assert stage.did == ["Keep the files"]
    given = {
        "ansible_facts": {"titanic_secrets_result": {"steps": ["write one", "write two"]}, "theirs": {"steps": ["x"]}}
    }
    report.record("here", stage, TaskFacts("ansible.builtin.set_fact", "role", "secrets | Return"), given, "ok")
    assert stage.did == ["write one", "write two"]
    assert stage.state == "changed"


def test_a_line_is_wrapped_below_itself_and_a_note_is_not_said_twice() -> None:
    stage = Stage("Seed", "role", 0, 1.25, "ok", did=["0 inserted, 0 updated, 887 unchanged"])
    stage.notes = ["0 inserted, 0 updated, 887 unchanged, 887 in the file; sha256 abc"]
    assert stage.line() == "Seed        ok         1.2 s  0 inserted, 0 updated, 887 unchanged"
    assert stage.line("a  ") == f"a  {stage.line()}"
    stage = Stage("Database", "role", 0, 100, "changed", did=["make the cluster", "start PostgreSQL", "make the roles"])
    assert stage.line("", 70).splitlines() == [
        "Database    changed  100.0 s  make the cluster; start PostgreSQL; make",
        "                              the roles",
    ]
    assert stage.line("", 70, lambda state: f"<{state}>").startswith("Database    <changed>  100.0 s  make")
    assert "\n" not in stage.line("", 40), "a terminal that is too narrow wraps by itself"
    assert Stage("Target", "role", 0, 0.5, "unreachable").line() == "Target      unreachable    0.5 s"


def test_names_of_stages() -> None:
    assert [stage_name(role) for role in ("whitestar.deploy.titanic_image", "lab_engine")] == ["Image", "Lab engine"]


def test_text_is_printed_as_it_is_and_anything_else_as_yaml() -> None:
    assert text_lines("a\nb") == ["a", "b"]
    assert text_lines(["a\nb", 1, True]) == ["a", "b", "1", "True"]
    assert text_lines({"b": {"c": [1]}, "a": "é"}) == ["b:", "  c:", "  - 1", "a: é"]
    assert text_lines(5) == ["5"]
    assert text_lines({"a": object}) == ["{", '  "a": "<class \'object\'>"', "}"]


def test_an_error_is_its_message_and_what_the_message_does_not_say() -> None:
    failed = {"msg": "non-zero return code", "stderr": "no room\n", "stdout": "x", "invocation": {"password": "p"}}
    assert error_lines(failed) == ["non-zero return code", "no room"]
    assert error_lines({"msg": "it failed: no room", "stderr": "no room"}) == ["it failed: no room"]
    assert error_lines({}) == ["it failed without a message"]


def test_a_hidden_error_says_how_to_see_it() -> None:
    hidden = {"censored": "the output has been hidden", "msg": "never"}
    (line,) = error_lines(hidden, "whitestar.deploy.titanic_secrets")
    assert line.endswith("titanic_secrets_secure_logging=false shows it.")
    assert error_lines(hidden) == ["the reason is hidden, since the task has no_log: it handles secrets"]


def test_the_summary_has_only_what_it_is_documented_to_have() -> None:
    report = RunReport()
    stage = Stage("Api", "role", 0, 2.04)
    report.host("here").stages += [stage, Stage("Seed", "role", 2, 2)]
    result = {"action": "none", "release": RELEASE, "password": "planted", "entry": {"by": "planted"}}
    report.record("here", stage, TaskFacts(f"{COLLECTION}host_release", "role", "api | Serve"), result, "ok")
    asked = {"kept": ["a"], "items": {"/people": 887}, "maintenance": ""}
    report.say("here", stage, summary(asked, "http://127.0.0.1:5000", RELEASE, {}), inline=False)
    report.say("here", stage, ["planted"], inline=True)
    text = report.summary({"here": {"ok": 3}}, check_mode=False, failed=False)
    assert "planted" not in text
    assert json.loads(text) == {
        "schema": run_report.SCHEMA,
        "check_mode": False,
        "failed": False,
        "hosts": {
            "here": {
                "ok": 3,
                "release": RELEASE,
                "url": "http://127.0.0.1:5000",
                "stages": [{"name": "Api", "state": "ok", "seconds": 2.0, "did": [f"{RELEASE} serves already"]}],
                "errors": [],
            }
        },
    }


def test_the_release_that_serves_is_known_from_the_preflight_where_none_is_started() -> None:
    report, stage = RunReport(), Stage("Preflight", "role", 0, 1)
    given = {"ansible_facts": {"titanic_preflight_result": {"live": {"release": RELEASE}}}}
    report.record("here", stage, TaskFacts("ansible.builtin.set_fact", "role", "preflight | Return"), given, "ok")
    assert report.host("here").release == RELEASE


def test_modules_and_what_they_say_are_called_so() -> None:
    modules = COLLECTION_DIRECTORY / "plugins/modules"
    assert [name for name in run_report.WORDS if not (modules / f"{name}.py").is_file()] == []
    told = (modules / "kubernetes_release.py").read_text().partition("RETURN")[2]
    assert [word for word in run_report.RELEASED if word not in told] == []
