# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of a release runs once as a Job, its answer is kept, and why it failed is told and recorded."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import SECRETS
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.jobs import ANSWER, COMMAND, Command
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.tests.cluster_helpers import (
    REGISTRY,
    SECRET,
    Space,
    objects_of,
    tiny_job,
    tiny_release,
)
from ansible_collections.whitestar.deploy.tests.helpers import RUN_SECONDS, Result, wait_for

# What it answers tells one run from another.
ANSWERS = """
import json, os, sys
print("a word before")
print(json.dumps({"changed": True, "from": None, "run": os.environ["HOSTNAME"], "given": os.environ.get("GIVEN")}))
"""
READS = """
import hashlib, json, sys
content = sys.stdin.buffer.read()
print(json.dumps({"changed": True, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}))
"""


def python(program: str, **more: Any) -> dict[str, Any]:
    return tiny_job("python3", "-c", program, **more)


def run_command(space: Space, job: dict[str, Any], *, check: bool = False, **options: Any) -> Result:
    return space.run("kubernetes_command", check=check, **({"name": "unit", "job": job, "key": "1"} | options))


def jobs(space: Space, name: str = "unit") -> list[str]:
    return space.names("job", f"{COMMAND}={name}")


def test_twelve_steps(space: Space) -> None:
    """Not done yet, done, another key; each in check mode and for real, and again. There is no way back."""
    job = python(ANSWERS, GIVEN="one")
    before = space.versions()
    seen = run_command(space, job, check=True)
    assert (seen.changed, seen["answer"], seen["repeated"]) == (True, {}, False)
    assert space.versions() == before
    done = run_command(space, job)
    (first,) = jobs(space)
    answer = done["answer"]
    assert (done.changed, done["repeated"]) == (True, False)
    assert (answer["given"], answer["from"]) == ("one", None)
    assert answer["run"].startswith(first)
    assert json.loads(done["diff"]["after"]) == answer
    for check in (True, False):
        again = run_command(space, job, check=check)
        assert (again.changed, again["repeated"]) == (False, True)
        assert again["answer"] == answer | {"changed": False}
    assert jobs(space) == [first]

    other = python(ANSWERS, GIVEN="two")
    assert run_command(space, other, check=True, key="2").changed
    assert jobs(space) == [first]
    done = run_command(space, other, key="2")
    assert done["answer"]["given"] == "two"
    (second,) = jobs(space)
    assert second != first, "of the Jobs of a command the last one stays"
    for check in (True, False):
        assert run_command(space, other, check=check, key="2")["repeated"]
    # What was done before another thing was has to be done again.
    assert not run_command(space, job, check=True)["repeated"]
    assert run_command(space, other, check=True, key="2", always=True).changed
    assert not run_command(space, other, key="2", always=True)["repeated"]
    assert jobs(space) != [second]


def test_it_is_done_again_when_what_it_was_done_to_is_made_anew(space: Space) -> None:
    of = [{"api_version": "v1", "kind": "ConfigMap", "name": "done-to"}]
    thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "done-to"}}
    job = python("print('{\"changed\": false}')")
    space.make(thing)
    assert not run_command(space, job, of=of, name="of").changed
    space.kubectl("annotate", "configmap", "done-to", "a=b")
    assert run_command(space, job, check=True, of=of, name="of")["repeated"]
    space.kubectl("delete", "configmap", "done-to")
    assert not run_command(space, job, check=True, of=of, name="of")["repeated"]
    space.make(thing)
    assert not run_command(space, job, check=True, of=of, name="of")["repeated"]


def test_it_is_done_again_while_nothing_that_serves_is_ready(space: Space) -> None:
    """Their readiness tells of the database: somebody may have put back an old one."""
    job, serves = python("print('{\"changed\": false}')"), {"serves": "unit"}
    assert not run_command(space, job, name="ready").changed
    assert run_command(space, job, check=True, name="ready", while_ready=serves)["repeated"], "nothing serves yet"
    pod = objects_of(tiny_release("unready", TINY_BEHAVIOUR="never"))[1]["spec"]["template"]
    pod["metadata"] = {"name": "unready", "labels": serves}
    pod["spec"].pop("topologySpreadConstraints")
    pod["spec"]["nodeSelector"] = {"unit.test/no-such": "node"}
    space.make({"apiVersion": "v1", "kind": "Pod", **pod})
    assert not run_command(space, job, check=True, name="ready", while_ready=serves)["repeated"]
    space.kubectl("delete", "pod", "unready", "--force", "--grace-period=0")


def test_a_file_of_some_megabytes_is_read_from_standard_input(space: Space, place: Path) -> None:
    source = place / "rows.csv"
    source.write_bytes(bytes(range(256)) * 4096 * 5 + b"the end")
    job = python(READS, stdin=True)
    assert run_command(space, job, check=True, name="feed", source=str(source)).changed
    done = run_command(space, job, name="feed", source=str(source))
    assert done["answer"]["bytes"] == 5 * 2**20 + 7
    assert not run_command(space, job, name="feed", source=str(source)).changed
    source.write_bytes(b"another")
    seen = run_command(space, job, check=True, name="feed", source=str(source))
    assert not seen["repeated"], "its content is part of the key"
    source.unlink()
    assert "rows.csv" in run_command(space, job, name="feed", source=str(source)).message


def test_a_command_that_fails_is_told_by_its_words(space: Space) -> None:
    message = run_command(space, tiny_job("python3", "fail"), name="failing").message
    assert message.startswith("failing failed: ")
    assert message.endswith("tiny release: this migration cannot be applied")
    # One that has failed has not been done.
    assert run_command(space, tiny_job("python3", "fail"), check=True, name="failing").changed
    good = run_command(space, python("print('{\"changed\": true}')"), name="failing")
    assert good.changed
    assert len(jobs(space, "failing")) == 1


def test_a_command_that_does_not_answer_has_failed(space: Space) -> None:
    message = run_command(space, tiny_job("python3", "mumble"), name="mumbling").message
    assert message == "mumbling failed: no JSON"
    assert run_command(space, tiny_job("python3", "mumble"), check=True, name="mumbling").changed


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (tiny_job("true", image=f"{REGISTRY}/no-such-image:1"), "no-such-image:1 cannot be pulled (ErrImagePull)"),
        (tiny_job("no-such-program"), "its container cannot be made (StartError): "),
    ],
)
def test_a_command_that_cannot_run_is_told_within_seconds(space: Space, job: dict[str, Any], words: str) -> None:
    began = time.monotonic()
    message = run_command(space, job, name="unable", seconds=RUN_SECONDS).message
    assert message.startswith("unable ")
    assert words in message
    assert time.monotonic() - began < 60
    left = space.all("job", f"{COMMAND}=unable")
    assert all(job["status"].get("failed") for job in left), "what would try again is left behind"


def test_a_command_that_may_not_be_run_is_told_by_the_words_of_who_forbids_it(space: Space) -> None:
    job = tiny_job("true")
    del job["spec"]["template"]["spec"]["securityContext"]
    message = run_command(space, job, name="forbidden", seconds=RUN_SECONDS).message
    assert message.startswith("forbidden could not be run: its pods are refused (Job): ")
    assert 'violates PodSecurity "restricted' in message


def test_a_command_that_takes_too_long_is_ended(space: Space) -> None:
    message = run_command(space, tiny_job("python3", "sleep"), name="slow", seconds=3).message
    assert message.startswith("slow could not be run: it did not get ready within 3 s")
    assert jobs(space, "slow") == []


def test_one_that_a_killed_run_left_at_work_is_waited_for(space: Space, kubernetes: KubernetesClient) -> None:
    job = python("import time; time.sleep(4); print('{}')")
    left = job | {"metadata": {"name": "titanic-left-1", "labels": {COMMAND: "left"}}}
    kubernetes.create(left)
    with pytest.raises(ReleaseError, match=r"Job titanic-left-1 of an earlier run is still at work\. Wait for it, or"):
        Command(kubernetes, "left").wait_for_others(0.5)
    space.kubectl("patch", "job", "titanic-left-1", "--patch", '{"spec": {"suspend": true}}')
    with pytest.raises(ReleaseError, match=r"Job titanic-left-1 is suspended\. Resume it"):
        Command(kubernetes, "left").wait_for_others(RUN_SECONDS)
    space.kubectl("patch", "job", "titanic-left-1", "--patch", '{"spec": {"suspend": false}}')
    done = run_command(space, python("print('{\"changed\": true}')"), name="left")
    assert done.changed
    assert "titanic-left-1" not in jobs(space, "left")


def test_a_failure_is_recorded_as_that_of_a_release_and_its_evidence_has_no_secret(space: Space) -> None:
    space.make(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRETS}, "stringData": {"password": SECRET}}
    )
    job = python(f"import sys; print('connecting with', open('/run/titanic/password').read()); sys.exit('no {SECRET}')")
    silent = run_command(space, job, name="told").message
    assert "no [password]" in silent
    failure = {"cluster": space.options, "by": "alice@laptop", "image": {"identity": "a" * 12, "description": {}}}
    failed = run_command(space, job, name="told", failure=failure)
    assert failed.message.startswith("told failed: ")
    # What it was given is told by ansible-core before 2.21, and here a command has the secret in its words.
    assert SECRET not in json.dumps({**failed.facts, "invocation": ""})
    command = failed.message.rpartition("evidence: kubectl ")[2]
    name = f"titanic-capsule-000001-{'a' * 12}"
    assert command == f"--namespace {space.name} get configmap {name} --output jsonpath='{{.data.capsule\\.txt}}'"
    failure_report = space.kubectl("get", "configmap", name, "--output", r"jsonpath={.data.capsule\.txt}")
    assert "connecting with [password]" in failure_report
    assert "== last output of the database ==\n(" in failure_report
    assert SECRET not in failure_report
    with KubernetesClient.of(space.options) as cluster:
        (entry,) = ClusterRecords(cluster).ledger().entries
    assert (entry.release, entry.outcome, entry.by) == ("a" * 12, "failed", "alice@laptop")
    assert SECRET not in entry.reason
    space.kubectl("delete", "secret", SECRETS)


def test_the_answer_is_kept_with_the_job(space: Space, kubernetes: KubernetesClient) -> None:
    command = Command(kubernetes, "kept")
    assert command.answered("k") is None
    done, answer, said = command.run(python(ANSWERS), "k", None, 60)
    assert (done, said) == (True, "a word before")
    assert command.answered("k") == answer
    assert command.answered("other") is None
    (job,) = command.jobs()
    assert json.loads(job["metadata"]["annotations"][ANSWER]) == answer
    kubernetes.delete("batch/v1", "Job", job["metadata"]["name"])
    wait_for(lambda: command.answered("k") is None)
