# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of a stage are kept as they should be, all or none, and those that are no longer wanted go."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import (
    PREFIX,
    SECRETS,
    STAGES,
    recorded,
    resolved,
    secret_names,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import LABELS, MANAGER
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.readiness import rolled_out
from ansible_collections.whitestar.deploy.tests.cluster_helpers import DEBIAN, REGISTRY, USER, Space
from ansible_collections.whitestar.deploy.tests.helpers import COLLECTION, RUN_SECONDS, Result, run_ansible


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def account(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


def service(port: int) -> dict[str, Any]:
    spec = {"selector": {"app": "unit"}, "ports": [{"name": "http", "port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "door"}, "spec": spec}


DEFAULT = "storageclass.kubernetes.io/is-default-class"
PASSWORD = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "stage-secret"},
    "stringData": {"password": "planted-in-a-stage"},
}


@pytest.fixture
def stage(space: Space) -> Iterator[str]:
    """The name of a stage, of which nothing is left afterwards."""
    yield "unit"
    keep(space, [])


def keep(space: Space, objects: list[dict[str, Any]], *, check: bool = False, **options: Any) -> Result:
    return space.keep("unit", objects, check=check, **options)


def test_twelve_steps(own_space: Space) -> None:
    """From nothing, changed, without one of them, each in check mode and for real, and again."""
    space, wanted = own_space, [account("keeper"), config("one", a="1"), service(80)]
    before = space.versions()
    seen = keep(space, wanted, check=True)
    steps = ["make ServiceAccount keeper", "make ConfigMap one", "make Service door"]
    assert (seen["steps"], seen.changed) == (steps, True)
    assert "# Service door\n" in seen["diff"]["after"]
    assert seen["diff"]["before"] == ""
    assert space.versions() == before
    done = keep(space, wanted)
    assert (done["steps"], done.changed) == (steps, True)
    assert done["diff"] == seen["diff"]
    labels = space.get("service", "door")["metadata"]["labels"]
    assert labels == LABELS
    after = space.versions()
    for check in (True, False):
        again = keep(space, wanted, check=check)
        assert (again["steps"], again.changed) == ([], False)
        assert again["diff"] == {"before": "", "after": ""}
    assert space.versions() == after
    assert again["calls"] < 25

    other = [account("keeper"), config("one", b="2"), service(81)]
    for check in (True, False):
        seen = keep(space, other, check=check)
        assert seen["steps"] == ["change ConfigMap one", "change Service door"]
        assert '"b": "2"' not in seen["diff"]["before"]
        assert '"b": "2"' in seen["diff"]["after"]
        assert (space.versions() == after) is check
    assert space.get("configmap", "one")["data"] == {"b": "2"}
    after = space.versions()
    assert not keep(space, other, check=True).changed
    assert not keep(space, other).changed
    assert space.versions() == after

    for check in (True, False):
        seen = keep(space, other[:1], check=check)
        assert seen["steps"] == ["remove Service door", "remove ConfigMap one"]
        assert "# ConfigMap one" in seen["diff"]["before"]
        assert seen["diff"]["after"] == ""
        assert (space.versions() == after) is check
    assert space.get("service", "door") is None
    assert space.get("serviceaccount", "keeper")
    after = space.versions()
    assert not keep(space, other[:1], check=True).changed
    assert not keep(space, other[:1]).changed
    assert space.versions() == after


def test_a_secret_is_refused_since_objects_are_given_back(space: Space) -> None:
    before = space.versions()
    for check in (True, False):
        done = keep(space, [config("one"), PASSWORD], check=check)
        assert done.message == "objects: Secret stage-secret is a secret. Have kubernetes_secrets keep it."
    assert space.versions() == before


def test_what_is_planned_is_written_down_and_nothing_else_is_done(own_space: Space) -> None:
    """Then what is to be applied is what was tried out, and what is to be removed what was recorded."""
    keep(own_space, [config("old")])
    before = own_space.versions()
    planned = own_space.run("kubernetes_objects", stage="unit", objects=[config("new", a="1")])
    after = own_space.versions()
    assert {name for name in after if after[name] != before.get(name)} == {f"ConfigMap {STAGES}"}
    assert planned["apply"] == [config("new", a="1") | {"metadata": {"name": "new", "labels": LABELS}}]
    assert planned["remove"] == [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "old"}}]
    assert (planned["pending"], planned.changed) == (True, True)
    seen = own_space.run("kubernetes_objects", stage="unit", objects=[config("new", a="1")], check=True)
    assert (seen["apply"], seen["remove"], seen["pending"]) == ([], [], False)
    assert seen["steps"] == ["make ConfigMap new", "remove ConfigMap old"]


def play(space: Space, *objects: dict[str, Any]) -> dict[str, Any]:
    """A play that does with objects what roles do."""
    variables = {
        "ansible_python_interpreter": sys.executable,
        "__titanic_common_cluster": space.options,
        "__titanic_common_stage": "unit",
        "__titanic_common_objects": list(objects),
    }
    tasks = COLLECTION / "roles/titanic_common/tasks/apply_objects.yml"
    return {"vars": variables, "tasks": [{"ansible.builtin.include_tasks": str(tasks)}]}


def test_roles_have_it_done_by_kubernetes_core_and_say_so_once(own_space: Space, tmp_path: Path) -> None:
    """What a role includes: check mode, for real, nothing to do, one to remove. No cache is left where others write."""
    guessable = set(Path(tempfile.gettempdir()).glob("k8srcp-*"))
    wanted = [config("one", a="1"), config("two", a="1")]
    before = own_space.versions()
    told = run_ansible(tmp_path, play(own_space, *wanted), "--check", "--diff", others=True).stdout
    assert re.search(r"changed=1 .*failed=0 .*skipped=3 ", told), told
    assert "# ConfigMap two" in told
    assert own_space.versions() == before
    for objects, counts in (
        (wanted, "changed=2 .*failed=0 .*skipped=1 "),
        (wanted, "changed=0 .*failed=0 .*skipped=3 "),
        (wanted[:1], "changed=2 .*failed=0 .*skipped=1 "),
    ):
        told = run_ansible(tmp_path, play(own_space, *objects), others=True).stdout
        assert re.search(counts, told), told
    assert own_space.get("configmap", "two") is None
    (entry,) = own_space.get("configmap", "one")["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == (MANAGER, "Apply")
    assert set(Path(tempfile.gettempdir()).glob("k8srcp-*")) == guessable


def test_a_namespace_that_is_not_there_yet_is_planned_with_all_that_is_in_it(space: Space) -> None:
    name = f"{space.name}-later"
    place = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    later = Space(space.options | {"namespace": name})
    seen = keep(later, [place, config("one", a="1")], check=True)
    assert seen["steps"] == [f"make Namespace {name}", "make ConfigMap one"]
    assert later.get("namespace", name) is None


def test_what_was_changed_by_hand_is_put_back(space: Space, stage: str) -> None:
    keep(space, [config("hand", a="1"), service(80)])
    space.kubectl("patch", "configmap", "hand", "--patch", '{"data": {"a": "changed"}}')
    space.kubectl(
        "patch", "service", "door", "--type=json", '--patch=[{"op":"replace","path":"/spec/ports/0/port","value":99}]'
    )
    space.kubectl("label", "configmap", "hand", "app.kubernetes.io/managed-by-")
    for check in (True, False):
        assert keep(space, [config("hand", a="1"), service(80)], check=check)["steps"] == [
            "change ConfigMap hand",
            "change Service door",
        ]
    assert space.get("configmap", "hand")["data"] == {"a": "1"}
    assert space.get("configmap", "hand")["metadata"]["labels"] == LABELS
    assert [port["port"] for port in space.get("service", "door")["spec"]["ports"]] == [80]


def test_what_others_added_stays(space: Space, stage: str) -> None:
    """Server-side apply owns the fields that it sets and no others."""
    keep(space, [config("shared", a="1")])
    space.kubectl("annotate", "configmap", "shared", "team=theirs")
    space.kubectl("patch", "configmap", "shared", "--patch", '{"data": {"b": "theirs"}}')
    assert not keep(space, [config("shared", a="1")]).changed
    assert keep(space, [config("shared", a="2")]).changed
    found = space.get("configmap", "shared")
    assert found["data"] == {"a": "2", "b": "theirs"}
    assert found["metadata"]["annotations"]["team"] == "theirs"


def test_what_was_removed_by_hand_is_made_again(space: Space, stage: str) -> None:
    keep(space, [config("gone", a="1")])
    space.kubectl("delete", "configmap", "gone")
    assert keep(space, [config("gone", a="1")])["steps"] == ["make ConfigMap gone"]
    space.kubectl("delete", "configmap", "gone")
    assert keep(space, [])["steps"] == [], "what is to go has gone"


def test_one_bad_object_keeps_all_from_being_made(space: Space, stage: str) -> None:
    before = space.versions()
    message = keep(space, [config("first"), service(70000), config("last")]).message
    assert message.startswith("the cluster refuses Service door: ")
    assert "spec.ports[0].port: Invalid value: 70000" in message
    unknown = {"apiVersion": "unit.test/v1", "kind": "Thing", "metadata": {"name": "x"}}
    assert "the cluster knows no Thing of unit.test/v1" in keep(space, [config("first"), unknown]).message
    assert space.versions() == before


def test_one_bad_object_of_a_later_stage_keeps_the_first_from_being_made(space: Space, stage: str) -> None:
    before = space.versions()
    good = {"unit": [config("first")], "other": [config("second")]}
    assert not space.run("kubernetes_objects", state="accepted", stages=good).changed
    bad = space.run("kubernetes_objects", state="accepted", stages=good | {"other": [service(70000)]})
    assert "the cluster refuses Service door: " in bad.message
    assert space.versions() == before


def test_a_run_that_was_cut_off_forgets_nothing(space: Space, stage: str, kubernetes: KubernetesClient) -> None:
    """What is to be made is written down before it is made, so that it can go again."""
    half = [config("half-1"), config("half-2")]
    planned = space.run("kubernetes_objects", stage="unit", objects=half)
    kubernetes.apply(planned["apply"][0])
    assert [name for _, _, name in recorded(kubernetes)["unit"]] == ["half-1", "half-2"]
    assert keep(space, [config("half-2")])["steps"] == ["make ConfigMap half-2", "remove ConfigMap half-1"]
    assert [name for _, _, name in recorded(kubernetes)["unit"]] == ["half-2"]


def test_one_stage_leaves_the_objects_of_another(space: Space, stage: str, kubernetes: KubernetesClient) -> None:
    space.keep("other", [config("theirs")])
    keep(space, [config("mine")])
    assert set(recorded(kubernetes)) >= {"other", "unit"}
    assert keep(space, [])["steps"] == ["remove ConfigMap mine"]
    assert space.get("configmap", "theirs")
    assert space.get("configmap", STAGES)
    space.keep("other", [])


def test_secrets_are_named_by_those_that_stand_for_them(space: Space, kubernetes: KubernetesClient) -> None:
    assert secret_names(kubernetes) == {}
    space.make({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRETS}})
    space.kubectl("annotate", "secret", SECRETS, f"{PREFIX}titanic-api=titanic-api-0a1b", "other/titanic-tls=x")
    names = secret_names(kubernetes)
    assert names == {"titanic-api": "titanic-api-0a1b"}
    volumes = [{"secret": {"secretName": "titanic-api"}}, {"secret": {"secretName": "other", "n": 1}}, "titanic-api"]
    assert resolved({"volumes": volumes}, names) == {
        "volumes": [
            {"secret": {"secretName": "titanic-api-0a1b"}},
            {"secret": {"secretName": "other", "n": 1}},
            volumes[2],
        ]
    }
    space.kubectl("delete", "secret", SECRETS)


def server(image: str = DEBIAN, command: tuple[str, ...] = ("sleep", "600"), **more: Any) -> dict[str, Any]:
    """A StatefulSet of one pod."""
    container = {
        "name": "server",
        "image": image,
        "command": list(command),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **more,
    }
    security = {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {
        "terminationGracePeriodSeconds": 0,
        "securityContext": security,
        "containers": [container],
    }
    if "volumeMounts" in more:
        pod["securityContext"] = {**security, "fsGroup": USER}
    labels = {"app": "server"}
    spec = {"serviceName": "server", "selector": {"matchLabels": labels}, "replicas": 1}
    spec["template"] = {"metadata": {"labels": labels}, "spec": pod}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "server"}, "spec": spec}


def test_what_runs_something_is_waited_for(space: Space, stage: str) -> None:
    assert keep(space, [server()])["steps"] == ["make StatefulSet server"]
    assert rolled_out(space.get("statefulset", "server"))
    assert not keep(space, [server()]).changed
    started = space.get("pod", "server-0")["metadata"]["uid"]
    assert keep(space, [server(env=[{"name": "A", "value": "1"}])])["steps"] == ["change StatefulSet server"]
    assert space.get("pod", "server-0")["metadata"]["uid"] != started
    # What somebody has stopped is put back.
    space.kubectl("scale", "statefulset/server", "--replicas=0")
    stopped = {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}}
    space.kubectl("patch", "statefulset/server", "--patch", json.dumps(stopped))
    assert keep(space, [server(env=[{"name": "A", "value": "2"}])])["steps"] == ["change StatefulSet server"]
    assert space.get("pod", "server-0")["spec"]["containers"][0]["env"] == [{"name": "A", "value": "2"}]


def on_volume(size: str, storage_class: str | None, **more: Any) -> dict[str, Any]:
    """The same with a volume."""
    made = server(volumeMounts=[{"name": "data", "mountPath": "/data"}], **more)
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    claim |= {"storageClassName": storage_class} if storage_class else {}
    made["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    return made


@pytest.fixture
def growing(space: Space) -> Iterator[str]:
    """A storage class that lets volumes grow, of the provisioner that the cluster has."""
    name = f"{space.name}-grows"
    (usual,) = (found for found in space.all("storageclass") if found["metadata"].get("annotations", {}).get(DEFAULT))
    kept = {key: usual[key] for key in ("apiVersion", "kind", "provisioner", "volumeBindingMode")}
    space.make(kept | {"metadata": {"name": name}, "allowVolumeExpansion": True})
    yield name
    space.kubectl("delete", "storageclass", name)


def test_a_volume_grows_where_it_may_and_what_uses_it_stays(space: Space, stage: str, growing: str) -> None:
    keep(space, [on_volume("16Mi", growing)])
    started = space.get("pod", "server-0")["metadata"]["uid"]
    assert not keep(space, [on_volume("16384Ki", growing)]).changed, "it is the same size"
    before = space.versions()
    seen = keep(space, [on_volume("32Mi", growing)], check=True)
    assert (seen["steps"], space.versions()) == (["change StatefulSet server"], before)
    assert '"storage": "32Mi"' in seen["diff"]["after"]
    assert keep(space, [on_volume("32Mi", growing)])["steps"] == ["change StatefulSet server"]
    requests = [claim["spec"]["resources"]["requests"] for claim in space.all("persistentvolumeclaim")]
    assert requests == [{"storage": "32Mi"}]
    assert space.get("pod", "server-0")["metadata"]["uid"] == started, "nothing was started again"
    (owner,) = space.get("pod", "server-0")["metadata"]["ownerReferences"]
    assert owner["uid"] == space.get("statefulset", "server")["metadata"]["uid"]
    for check in (True, False):
        assert not keep(space, [on_volume("32Mi", growing)], check=check).changed
    for size, of, words in (
        ("16Mi", growing, "the volume data-server-0 has 32Mi, and none gets smaller. Set it to 32Mi or more"),
        ("32Mi", "no-such", f"the volume data-server-0 is of the class {growing}, which no volume changes"),
    ):
        for check in (True, False):
            assert words in keep(space, [on_volume(size, of)], check=check).message
    keep(space, [])
    space.kubectl("delete", "persistentvolumeclaim", "--all", "--wait=false")


def test_a_pod_that_will_not_come_is_told_by_its_reason_and_not_by_a_timeout(space: Space, stage: str) -> None:
    began = time.monotonic()
    message = keep(space, [server(f"{REGISTRY}/no-such-image:1")], seconds=RUN_SECONDS).message
    assert message.startswith("StatefulSet server does not run: its image ")
    assert "no-such-image:1 cannot be pulled (ErrImagePull)" in message
    assert time.monotonic() - began < 60


def test_a_pod_that_may_not_be_made_is_told_by_the_words_of_who_forbids_it(space: Space, stage: str) -> None:
    bad = server(securityContext={"privileged": True})
    message = keep(space, [bad], seconds=RUN_SECONDS).message
    assert message.startswith("StatefulSet server does not run: its pods are refused (StatefulSet): ")
    assert 'violates PodSecurity "restricted' in message


def test_a_pod_that_is_not_ready_in_time_is_told_with_what_it_printed(space: Space, stage: str) -> None:
    words = ("sh", "-c", "echo not yet; exec sleep 600")
    never = server(command=words, readinessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1})
    message = keep(space, [never], seconds=8).message
    assert message.startswith(
        "StatefulSet server does not run: it did not get ready within 8 s: Readiness probe failed"
    )
    assert message.endswith("its last output:\nnot yet")
