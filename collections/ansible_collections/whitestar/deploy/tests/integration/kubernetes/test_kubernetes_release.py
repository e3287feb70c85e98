# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release takes over when it has been tried out, or leaves what serves as it is; a rollback goes the same way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import SECRETS
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import COMPONENT, RELEASE, labels
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import LABELS
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import LEDGER, ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rollout import TRIAL, Rollout
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import FAILURE_REPORTS_KEPT, Ledger
from ansible_collections.whitestar.deploy.tests.cluster_helpers import (
    REGISTRY,
    SECRET,
    Space,
    objects_of,
    tiny_release,
)
from ansible_collections.whitestar.deploy.tests.helpers import (
    RUN_SECONDS,
    SERVICE,
    Result,
    finish_module,
    free_port,
    kill,
    start_module,
    wait_for,
)

Workload = dict[str, Any]
# A database's schema that both serve.
GOOD = tiny_release("a" * 12, TINY_LIVE_SCHEMA="0001")
OTHER = tiny_release("b" * 12, "0002", TINY_LIVE_SCHEMA="0001")


def options(workload: Workload, **more: Any) -> dict[str, Any]:
    given = {"objects": objects_of(workload), "workload": workload, "replicas": 1, "by": "alice@laptop"}
    return given | {"why": "deploy", "ready_seconds": 30} | more


def serve(space: Space, workload: Workload, *, check: bool = False, **more: Any) -> Result:
    return space.run("kubernetes_release", check=check, **options(workload, **more))


def restore(space: Space, number: int, *, check: bool = False) -> Result:
    given = {
        "restore": number,
        "probes": {"smoke": ["/"]},
        "replicas": 1,
        "by": "alice@laptop",
        "why": "rollback from b",
        "ready_seconds": 30,
    }
    return space.run("kubernetes_release", check=check, **given)


def ledger(space: Space) -> Ledger:
    with KubernetesClient.of(space.options) as cluster:
        return ClusterRecords(cluster).ledger()


def outcomes(space: Space) -> list[tuple[str, str]]:
    """The ledger's releases, by the letter that they begin with, and what became of them."""
    return [(entry.release[0], entry.outcome) for entry in ledger(space).entries]


def serving(space: Space) -> str:
    """The release of the pods that get requests."""
    selector = ",".join(f"{name}={value}" for name, value in labels("api").items())
    pods = space.all("pod", selector)
    found = {
        pod["metadata"]["annotations"][RELEASE]
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and any(entry["type"] == "Ready" and entry["status"] == "True" for entry in pod["status"].get("conditions", []))
    }
    return ", ".join(sorted(found))


def trials(space: Space) -> list[str]:
    return space.names("pod", f"{COMPONENT}={TRIAL}")


def failure_report(space: Space, result: Result) -> str:
    name = result.message.rpartition("get configmap ")[2].split()[0]
    return space.kubectl("get", "configmap", name, "--output", r"jsonpath={.data.capsule\.txt}")


@pytest.fixture(scope="module")
def with_secret(space: Space) -> Space:
    """The collection knows the secret that pods read."""
    space.make(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRETS}, "stringData": {"password": SECRET}}
    )
    return space


@pytest.fixture
def served(with_secret: Space) -> Iterator[Space]:
    """A namespace in which a good release serves, before and after."""
    assert not serve(with_secret, GOOD).failed
    yield with_secret
    assert not trials(with_secret), "a pod in which a release was tried out is left behind"


def assert_served_on(space: Space, failed: Result) -> None:
    assert serving(space) == GOOD["release"]
    assert "did not take over, what served before serves on: " in failed.message
    assert SECRET not in failed.output
    assert ledger(space).entries[-1].outcome == "failed"
    assert ledger(space).entries[-1].reason.partition(":")[0] in failed.message
    assert "what failed" in failure_report(space, failed)


def test_twelve_steps(own_space: Space) -> None:
    """The first release, another, back to the first; each in check mode and for real, and again."""
    space = own_space
    before = space.versions()
    seen = serve(space, GOOD, check=True)
    assert (seen["action"], seen.changed, seen["entry"]) == ("deployed", True, {})
    assert "# Deployment titanic-api" in seen["diff"]["after"]
    assert seen["diff"]["before"] == ""
    assert space.versions() == before
    done = serve(space, GOOD)
    assert (done["action"], done["release"], done["pruned"]) == ("deployed", GOOD["release"], [])
    entry = {name: done["entry"][name] for name in ("number", "release", "image", "outcome", "by", "why", "restores")}
    expected = {"number": 1, "release": GOOD["release"], "image": "a" * 12, "outcome": "succeeded"}
    assert entry == expected | {"by": "alice@laptop", "why": "deploy", "restores": None}
    assert serving(space) == GOOD["release"]
    assert trials(space) == []
    assert space.get("configmap", f"titanic-api-{GOOD['release']}")["immutable"] is True
    after = space.versions()
    for check in (True, False):
        again = serve(space, GOOD, check=check)
        assert (again["action"], again.changed, again["diff"]) == ("none", False, {"before": "", "after": ""})
        assert again["entry"] == done["entry"]
    assert again["calls"] < 20
    assert space.versions() == after

    seen = serve(space, OTHER, check=True)
    assert seen["action"] == "deployed"
    assert OTHER["release"] in seen["diff"]["after"]
    assert OTHER["release"] not in seen["diff"]["before"]
    assert space.versions() == after
    done = serve(space, OTHER)
    assert (done["action"], done["entry"]["number"]) == ("deployed", 2)
    assert serving(space) == OTHER["release"]
    for check in (True, False):
        assert serve(space, OTHER, check=check)["action"] == "none"

    seen = restore(space, 1, check=True)
    assert (seen["action"], seen["release"]) == ("deployed", GOOD["release"])
    assert serving(space) == OTHER["release"]
    done = restore(space, 1)
    assert (done["action"], done["entry"]["number"], done["entry"]["restores"]) == ("deployed", 3, 1)
    assert done["entry"]["why"] == "rollback from b"
    assert serving(space) == GOOD["release"]
    for check in (True, False):
        assert restore(space, 1, check=check)["action"] == "none"
    assert outcomes(space) == [("a", "succeeded"), ("b", "succeeded"), ("a", "succeeded")]
    message = restore(space, 7).message
    assert "release of an unknown entry is recorded, but its objects are gone. Choose another release" in message

    target = space.run("kubernetes_rollback_target", release="b")
    assert target["entry"]["number"] == 2
    address = f"127.0.0.1:{free_port()}"
    status = space.run("kubernetes_lifecycle", probes=SERVICE["probes"], address=address)["status"]
    assert (status["release"], status["version"], status["ready"]) == (GOOD["release"], "1.0.0", False)
    assert (status["lock"], status["rollback_to"]) == ("free", [OTHER["release"]])
    assert set(status["pods"].values()) <= {"ready", "leaving"}
    assert len(status["ledger"]) == 3

    # People's own namespace stays, with what is theirs.
    removed = space.run("kubernetes_lifecycle", probes=SERVICE["probes"], check=True, state="absent", address=address)
    assert (removed.changed, removed["status"]["release"]) == (True, GOOD["release"])
    assert GOOD["release"] in removed["diff"]["before"]
    assert serving(space) == GOOD["release"]
    steps = [f"remove what deployments have made in the namespace {space.name}"]
    assert removed["steps"] == steps
    ended = space.run("kubernetes_lifecycle", probes=SERVICE["probes"], state="absent", address=address)
    assert (ended.changed, ended["steps"]) == (True, steps)
    for kind in ("deployment", "pod", "job"):
        assert space.names(kind) == []
    assert space.get("namespace", space.name)["status"]["phase"] == "Active"
    assert {"tiny", "plain"} <= {*space.names("configmap"), *space.names("secret")}
    for state in ("absent", "reported"):
        for check in (True, False):
            gone = space.run(
                "kubernetes_lifecycle", probes=SERVICE["probes"], check=check, state=state, address=address
            )
            assert (gone.changed, gone["status"]) == (False, {})


def test_a_namespace_that_a_deployment_made_goes_with_everything_in_it(
    kubernetes_options: dict[str, Any], space: Space
) -> None:
    own = Space(kubernetes_options | {"namespace": f"{space.name}-own"})
    place = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": own.name}}
    thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "part"}}
    own.keep("target", [place, thing])
    assert own.run("kubernetes_lifecycle", probes=SERVICE["probes"], state="absent", address="127.0.0.1:1").changed
    assert own.get("namespace", own.name) is None
    assert not own.run("kubernetes_lifecycle", probes=SERVICE["probes"], state="absent", address="127.0.0.1:1").changed


def test_an_image_that_nobody_has_is_named_within_seconds(served: Space) -> None:
    began = time.monotonic()
    bad = GOOD | {"release": "c-1", "image": f"{REGISTRY}/no-such-image:1"}
    failed = serve(served, bad, ready_seconds=RUN_SECONDS)
    assert time.monotonic() - began < 60
    assert failed.message.startswith("release c-1 did not take over, what served before serves on: its image ")
    assert "no-such-image:1 cannot be pulled (ErrImagePull)" in failed.message
    assert_served_on(served, failed)
    assert "Failed to pull image" in failure_report(served, failed)
    assert served.get("configmap", "titanic-api-c-1") is None, "settings of a failed release are left behind"
    (warning,) = serve(served, bad, check=True).warnings
    assert "release c-1: it failed at " in warning


def test_a_release_that_ends_is_told_by_its_words_without_its_secrets(served: Space) -> None:
    failed = serve(served, tiny_release("d" * 12, TINY_BEHAVIOUR="exits", TINY_TELLS="1"))
    assert "it ended at once (exit code 1)" in failed.message
    assert "tiny release: no reason to live" in failed.message
    assert "tiny release knows [password]" in failed.message
    assert_served_on(served, failed)
    text = failure_report(served, failed)
    assert "tiny release knows [password]" in text
    assert '+    "TINY_BEHAVIOUR": "exits"' in text
    assert SECRET not in text


def test_a_release_that_does_not_get_ready_is_told_by_its_probe(served: Space) -> None:
    failed = serve(served, tiny_release("e" * 12, TINY_BEHAVIOUR="never"), ready_seconds=10)
    assert "it did not get ready within 10 s: Readiness probe failed: HTTP probe failed with statuscode: 503" in (
        failed.message
    )
    assert_served_on(served, failed)


def test_a_release_that_fails_what_users_ask_gets_no_traffic(served: Space) -> None:
    failed = serve(served, tiny_release("f" * 12, TINY_BEHAVIOUR="fails"))
    assert "it got ready, but /people fails: 500 " in failed.message
    assert_served_on(served, failed)
    assert "/people 500" in failure_report(served, failed)


def test_a_quota_that_leaves_no_room_is_named(served: Space) -> None:
    hard = {"metadata": {"name": "unit"}, "spec": {"hard": {"pods": "1"}}}
    served.make({"apiVersion": "v1", "kind": "ResourceQuota", **hard})
    quota = lambda: (served.get("resourcequota", "unit").get("status") or {}).get("used", {}).get("pods") == "1"  # noqa: E731
    wait_for(quota)
    failed = serve(served, OTHER)
    assert "its pod is refused: " in failed.message
    assert "exceeded quota: unit, requested: pods=1, used: pods=1, limited: pods=1" in failed.message
    assert_served_on(served, failed)
    served.kubectl("delete", "resourcequota", "unit")


def test_a_release_that_fails_after_its_trial_is_replaced_by_the_one_before(served: Space) -> None:
    failed = serve(served, tiny_release("9" * 12, TINY_ONLY="trial"))
    assert "it ended at once (exit code 1)" in failed.message
    assert "tiny release: this is no trial" in failed.message
    assert f"release {GOOD['release']} has been put back" in failed.message
    assert_served_on(served, failed)
    assert serve(served, GOOD)["action"] == "none"


def test_a_release_that_errs_under_analysis_is_replaced_by_the_one_before(served: Space) -> None:
    sour = tiny_release("8" * 12, TINY_BEHAVIOUR="fails")
    sour["probes"] = sour["probes"] | {"smoke": ["/"]}
    run = start_module(
        "kubernetes_release", {"cluster": served.options, **options(sour, analysis={"seconds": RUN_SECONDS})}
    )
    wait_for(lambda: sour["release"] in serving(served) and not trials(served), RUN_SECONDS)
    with KubernetesClient.of(served.options) as cluster:
        (pod,) = served.names("pod", f"{RELEASE}={sour['release']}")
        with cluster.forwarded(pod, 8000) as address:
            while run.poll() is None and serving(served) != GOOD["release"]:
                for _ in range(30):
                    try_request(address, "/people")
    failed = finish_module(run)
    assert "under analysis: of " in failed.message
    assert f"release {GOOD['release']} has been put back" in failed.message
    assert_served_on(served, failed)


def test_what_was_changed_by_hand_is_put_right(served: Space) -> None:
    entries = ledger(served).entries
    served.kubectl("set", "image", "deployment/titanic-api", f"api={REGISTRY}/no-such-image:1")
    # What is wrong with the pods that this made is no reason to leave it so.
    wait_for(lambda: "ErrImagePull" in served.kubectl("get", "pods"))
    assert serve(served, GOOD, check=True)["action"] == "restarted"
    done = serve(served, GOOD)
    assert (done["action"], done["release"]) == ("restarted", GOOD["release"])
    assert serving(served) == GOOD["release"]
    assert (
        served.get("deployment", "titanic-api")["spec"]["template"]["spec"]["containers"][0]["image"] == GOOD["image"]
    )
    assert ledger(served).entries == entries, "nothing was deployed"
    # A state that keeps a release from coming is put back by a run that changes nothing else.
    for words, path in (("rollout pause", "paused"), ("scale --replicas=0", "replicas")):
        served.kubectl(*words.split(), "deployment/titanic-api")
        found = served.run("kubernetes_drift_info")["differences"]
        assert f"spec.{path}" in {each["path"] for each in found if each["what"] == "Deployment titanic-api"}
        for check in (True, False):
            assert serve(served, GOOD, check=check)["action"] == "restarted"
        assert serve(served, GOOD, check=True)["action"] == "none"
        assert serving(served) == GOOD["release"]
    served.kubectl("delete", "deployment", "titanic-api")
    served.kubectl("delete", "configmap", f"titanic-api-{GOOD['release']}")
    assert serve(served, GOOD)["action"] == "restarted"
    assert serving(served) == GOOD["release"]


def test_a_deployment_that_is_paused_is_no_reason_for_a_release_to_fail(served: Space) -> None:
    served.kubectl("rollout", "pause", "deployment/titanic-api")
    assert serve(served, OTHER)["action"] == "deployed"
    assert serving(served) == OTHER["release"]
    # One that is to be paused is told of at once.
    began = time.monotonic()
    paused = tiny_release("0" * 12)
    paused["overrides"] = paused["overrides"] | {"spec": paused["overrides"]["spec"] | {"paused": True}}
    failed = serve(served, paused, ready_seconds=RUN_SECONDS)
    assert "Deployment titanic-api is paused. Resume it with: kubectl --namespace " in failed.message
    assert f"release {OTHER['release']} has been put back" in failed.message
    assert time.monotonic() - began < 60
    assert serving(served) == OTHER["release"]


def test_a_deployment_made_before_we_stated_that_it_is_at_work_is_left_as_it_is(own_space: Space) -> None:
    serve(own_space, GOOD)
    with KubernetesClient.of(own_space.options) as cluster:
        found = own_space.get("deployment", "titanic-api")
        for entry in found["metadata"]["managedFields"]:
            entry["fieldsV1"].get("f:spec", {}).pop("f:paused", None)
        cluster.replace(found)
        assert Rollout(cluster, objects_of(GOOD), (1, 5)).changes(check=False) == []
    before = own_space.versions()
    assert serve(own_space, GOOD)["action"] == "none"
    assert own_space.versions() == before
    own_space.kubectl("rollout", "pause", "deployment/titanic-api")
    assert serve(own_space, GOOD)["action"] == "restarted"


def test_what_an_autoscaler_set_is_left_alone_within_its_bounds(served: Space) -> None:
    served.kubectl("scale", "deployment/titanic-api", "--replicas=2")
    wait_for(lambda: served.get("deployment", "titanic-api")["status"].get("availableReplicas") == 2)
    for check in (True, False):
        assert serve(served, GOOD, check=check)["action"] == "none"
    assert served.get("deployment", "titanic-api")["spec"]["replicas"] == 2
    # While a pod is added it is waited for, and nothing is changed.
    served.kubectl("create", "quota", "two", "--hard=pods=2")
    served.kubectl("scale", "deployment/titanic-api", "--replicas=3")
    wait_for(lambda: served.get("deployment", "titanic-api")["status"].get("unavailableReplicas") == 1)
    seen = serve(served, GOOD, check=True)
    served.kubectl("delete", "quota", "two")
    done = serve(served, GOOD)
    assert (seen["action"], seen["changed"], done["changed"]) == ("awaited", False, False)
    assert served.get("deployment", "titanic-api")["status"]["availableReplicas"] == 3
    assert serve(served, GOOD, max_replicas=1)["action"] == "restarted"
    assert served.get("deployment", "titanic-api")["spec"]["replicas"] == 1


def test_a_run_that_was_killed_is_told_of_and_tidied_up_after(served: Space) -> None:
    never = tiny_release("7" * 12, TINY_BEHAVIOUR="never")
    run = start_module("kubernetes_release", {"cluster": served.options, **options(never, ready_seconds=RUN_SECONDS)})
    wait_for(lambda: trials(served))
    kill(run.pid)
    run.communicate()
    assert outcomes(served)[-1] == ("7", "started")
    (left,) = trials(served)
    seen = serve(served, never, check=True)
    assert "the run that deployed it at " in seen.warnings[0]
    failed = serve(served, never, ready_seconds=3)
    assert "did not get ready within 3 s" in failed.message
    assert left not in trials(served)
    assert outcomes(served)[-2:] == [("7", "interrupted"), ("7", "failed")]


def record(space: Space, *workloads: Workload, outcome: str = "succeeded", **kept: list[Any]) -> None:
    """Entries of releases, with their objects, as :mod:`kubernetes_release` records them."""
    with KubernetesClient.of(space.options) as cluster:
        records = ClusterRecords(cluster)
        for workload in workloads:
            made, _ = records.ledger().add(
                release=workload["release"],
                image=workload["image_facts"]["identity"],
                config=workload["config"],
                schema_required=workload["image_facts"]["schema"]["required"],
                schema_tolerates="0001",
                version="1.0.0",
                by="alice@laptop",
                why="deploy",
                outcome=outcome,
            )
            records.write(made, {workload["release"]: kept.get("objects", objects_of(workload))})


def test_a_rollout_that_was_cut_off_is_finished_without_another_trial(served: Space) -> None:
    """The Deployment is as it is wanted, and the ledger knows only that somebody began."""
    with KubernetesClient.of(served.options) as cluster:
        records = ClusterRecords(cluster)
        found = records.ledger()
        records.write(found.finish(found.entries[-1].number, "started"), {})
        for entry in found.entries:
            if entry.release == GOOD["release"]:
                records.write(records.ledger().finish(entry.number, "started"), {})
    assert serve(served, GOOD, check=True)["action"] == "resumed"
    done = serve(served, GOOD)
    assert (done["action"], done["entry"]["outcome"]) == ("resumed", "succeeded")
    assert serve(served, GOOD)["action"] == "none"


def test_releases_that_no_rollback_needs_are_removed(served: Space) -> None:
    past = [tiny_release(letter * 12) for letter in "123"]
    for workload in past:
        served.make(ours(objects_of(workload)[0]))
    record(served, *past)
    # It served before, and is none of the one that are kept.
    done = serve(served, OTHER, keep=1)
    names = {f"titanic-api-{workload['release']}" for workload in (*past[:2], GOOD)}
    assert set(done["pruned"]) == names
    assert not names & set(served.names("configmap"))
    assert f"titanic-api-{past[2]['release']}" in served.names("configmap")
    kept = {name.removesuffix(".json") for name in served.get("configmap", LEDGER)["data"]} - {"ledger"}
    assert kept == {past[2]["release"], OTHER["release"]}
    seen = served.run("kubernetes_rollback_target", check=True)
    assert (seen["entry"]["release"], seen["serving"]) == (past[2]["release"], OTHER["release"])


def ours(thing: dict[str, Any]) -> dict[str, Any]:
    return thing | {"metadata": thing["metadata"] | {"labels": thing["metadata"]["labels"] | LABELS}}


def test_a_rollback_that_the_live_schema_cannot_serve_is_refused(served: Space) -> None:
    """The database is asked by the release that serves, and nothing is left of the question."""
    ahead = tiny_release("6" * 12, TINY_LIVE_SCHEMA="0002")
    record(served, OTHER, ahead)
    settings, _ = objects_of(ahead)
    served.make(ours(settings))
    good = served.run("kubernetes_rollback_target", release="b")
    assert (good["entry"]["release"], good["serving"], good.changed) == (OTHER["release"], ahead["release"], False)
    refused = served.run("kubernetes_rollback_target", release="a").message
    assert refused.startswith("rollback refused, nothing was touched: release aaaaaaaaaaaa-")
    assert "needs schema 0001, but the live schema serves releases from 0002 on" in refused
    assert not served.run("kubernetes_rollback_target", check=True, release="a").failed, "the database was asked"
    assert served.names("job") == []
    unknown = served.run("kubernetes_rollback_target", release="x").message
    assert "titanic_rollback_to: 'x' is not in the ledger" in unknown


def test_a_rollback_is_refused_while_the_database_does_not_answer(served: Space) -> None:
    silent = tiny_release("5" * 12)
    record(served, silent)
    served.make(ours(objects_of(silent)[0]))
    message = served.run("kubernetes_rollback_target").message
    assert message.startswith("rollback refused, nothing was touched: the live schema is not known")
    assert "tiny release: the database does not answer" in message
    assert message.endswith("Run the site first, which starts it.")


def test_a_rollback_with_nothing_to_go_back_to_is_refused(own_space: Space) -> None:
    message = own_space.run("kubernetes_rollback_target").message
    assert message == (
        "rollback refused, nothing was touched: nothing has been deployed here yet, so there is nothing to roll back"
    )


def test_a_first_release_that_fails_leaves_nothing_that_tries_on(own_space: Space) -> None:
    failed = serve(own_space, tiny_release("4" * 12, TINY_ONLY="trial"))
    assert "tiny release: this is no trial" in failed.message
    assert own_space.get("deployment", "titanic-api") is None
    assert outcomes(own_space) == [("4", "failed")]


def test_the_record_is_written_by_one_run_at_a_time(kubernetes: KubernetesClient, with_secret: Space) -> None:
    first, second = ClusterRecords(kubernetes), ClusterRecords(kubernetes)
    first.write(first.ledger(), {"nobody": []})
    with pytest.raises(ClusterError, match="has been modified") as caught:
        second.write_ledger(second.ledger())
    assert caught.value.status == 409
    first.write(first.ledger(), {"somebody": []})


def test_a_record_that_cannot_be_read_is_named(own_space: Space) -> None:
    """Also where somebody has restored it."""
    metadata = {"name": LEDGER, "labels": {"app.kubernetes.io/managed-by": "whitestar.deploy"}}
    own_space.make({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ledger.json": "{"}})
    message = serve(own_space, GOOD, check=True).message
    assert "ConfigMap titanic-ledger is not readable" in message
    assert message.endswith("Restore it, or delete it.")


def test_the_newest_failure_reports_are_kept_and_a_long_one_is_cut(
    kubernetes: KubernetesClient, with_secret: Space
) -> None:
    records = ClusterRecords(kubernetes)
    numbers = range(900000, 900000 + FAILURE_REPORTS_KEPT + 2)
    for number in numbers:
        where = records.store_failure_report(f"{number}-x", "é" * 600_000 if number == numbers[-1] else "words")
    kept = with_secret.names("configmap", "whitestar.deploy/capsule=true")
    assert kept == [f"titanic-capsule-{number}-x" for number in numbers[-FAILURE_REPORTS_KEPT:]]
    assert kept[-1] in where
    assert len(with_secret.get("configmap", kept[-1])["data"]["capsule.txt"]) == 450_000


def test_the_objects_of_a_release_are_kept_with_it(kubernetes: KubernetesClient, served: Space) -> None:
    (made,) = [json.dumps(ClusterRecords(kubernetes).objects(GOOD["release"]))]
    assert SECRET not in made
    rollout = Rollout(kubernetes, json.loads(made), (1, 5))
    assert (rollout.release, rollout.serving(), rollout.port) == (GOOD["release"], GOOD["release"], 8000)
    assert rollout.complete()
    assert rollout.changes(check=False) == []
    assert ClusterRecords(kubernetes).objects("nobody's") == []
