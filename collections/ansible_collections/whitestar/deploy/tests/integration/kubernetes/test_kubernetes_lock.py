# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run on a cluster begins alone, where a deployment can succeed, and what is missing is named before anything is."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Process
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.lease import NAME
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.preflight import missing, problems
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rbac import rules
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import Owner
from ansible_collections.whitestar.deploy.tests.cluster_helpers import Space
from ansible_collections.whitestar.deploy.tests.helpers import OWNER, Result, finish_module, start_module

PROCESS = Process.of(os.getpid())
assert PROCESS is not None
ME = {"host": socket.gethostname(), "user": "alice", "pid": PROCESS.pid, "started": PROCESS.started}


def begin(space: Space, owner: dict[str, Any] = ME, *, check: bool = False, **options: Any) -> Result:
    # The tests made the namespace, not a deployment.
    return space.run("kubernetes_lock", check=check, state="present", owner=owner, adopt=True, **options)


NOTHING_ASKED = {
    "deploys": True,
    "needs_running": False,
    "adopt": True,
    "required_resources": [],
    "volume": None,
    "overlays": [],
}
PORT: dict[str, Any] = {"name": "http", "port": 80}


@pytest.fixture
def free(space: Space) -> Iterator[Space]:
    yield space
    space.kubectl("delete", "lease", NAME, "--ignore-not-found")


def need(kind: str, api_version: str = "v1", **more: Any) -> dict[str, Any]:
    return {"api_version": api_version, "kind": kind, "variable": "titanic_unit_x", "remedy": "have one"} | more


def test_a_run_begins_and_ends_and_says_that_it_changed_nothing(free: Space) -> None:
    before = free.versions()
    seen = begin(free, check=True)
    assert (seen.changed, seen["live"], seen["live_image"], seen["reality"]) == (False, {}, "", {})
    assert free.versions() == before
    assert not begin(free).changed
    holder = free.get("lease", NAME)["spec"]["holderIdentity"]
    assert holder == f"alice@{ME['host']}"
    for _ in range(2):
        ended = free.run("kubernetes_lock", state="absent", owner=ME)
        assert not ended.changed
        assert free.get("lease", NAME) is None


def test_a_second_run_is_refused_at_once_and_told_who_works_here(free: Space) -> None:
    begin(free)
    began = time.monotonic()
    message = begin(free, OWNER).message
    # The lock itself is asked for in test_lease.py; the rest is what Ansible and kubectl take to start.
    assert time.monotonic() - began < 30
    assert message.startswith(f"another run holds the deploy lock: alice@{ME['host']} (process {os.getpid()}, since ")
    assert not free.run("kubernetes_lock", state="absent", owner=OWNER).failed
    assert free.get("lease", NAME), "it was given back by another run"
    assert not free.run("kubernetes_lock", check=True, state="absent", owner=ME).failed
    assert free.get("lease", NAME), "it was given back in check mode"


def test_the_lock_of_a_dead_run_is_taken_over_and_said_so(free: Space) -> None:
    begin(free, ME | {"pid": 2**22 + 1, "user": "bob"})
    (warning,) = begin(free).warnings
    assert f"took the deploy lock over from bob@{ME['host']} (process {2**22 + 1}, since" in warning
    assert free.get("lease", NAME)["spec"]["holderIdentity"] == f"alice@{ME['host']}"


def test_a_namespace_that_is_missing_is_made_for_the_lock(
    kubernetes_options: dict[str, Any], spaces: list[Space]
) -> None:
    space = Space(kubernetes_options | {"namespace": f"unit-{secrets.token_hex(4)}"})
    assert not begin(space, check=True).changed
    assert not begin(space, deploys=False).changed
    assert begin(space, continues=True).message.startswith("nothing has been deployed here yet. Run the whole site")
    assert space.get("namespace", space.name) is None
    assert not begin(space).changed
    labels = space.get("namespace", space.name)["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "whitestar.deploy"
    assert space.get("lease", NAME)
    spaces.append(space)
    space.kubectl("patch", "namespace", space.name, "--patch", '{"metadata": {"finalizers": ["unit.test/wait"]}}')
    space.kubectl("delete", "namespace", space.name, "--wait=false")
    message = begin(space).message
    space.kubectl("patch", "namespace", space.name, "--patch", '{"metadata": {"finalizers": null}}')
    assert message == f"titanic_project: namespace {space.name} is being removed. Wait for that."


def test_what_the_deployment_rests_on_is_asked_for_and_all_that_is_missing_is_named(free: Space) -> None:
    before = free.versions()
    needs = [
        need("IngressClass", "networking.k8s.io/v1", name="no-such-class", variable="titanic_api_ingress_class"),
        need("StorageClass", "storage.k8s.io/v1", default="unit.test/is-default"),
        need("HTTPRoute", "gateway.unit.test/v1", variable="titanic_api_front", remedy="Install the Gateway API"),
        need("PodMetrics", "metrics.unit.test/v1beta1"),
        need("Namespace", name="kube-system"),
        need("Deployment", "apps/v1"),
        need("StorageClass", "storage.k8s.io/v1", default="storageclass.kubernetes.io/is-default-class"),
    ]
    classes = ", ".join(free.names("ingressclass")) or "none"
    found = begin(free, required_resources=needs)
    assert found["problems"] == [
        f"titanic_api_ingress_class: the cluster has no IngressClass no-such-class (it has {classes}). have one",
        "titanic_unit_x: the cluster has no default StorageClass. have one",
        "titanic_api_front: the cluster knows no HTTPRoute (gateway.unit.test/v1). Install the Gateway API",
        "titanic_unit_x: the cluster knows no PodMetrics (metrics.unit.test/v1beta1). have one",
    ]
    assert found.message == "\n".join(found["problems"])
    assert free.versions() == before, "the lock was taken"
    assert not begin(free, required_resources=needs, deploys=False).failed


def volume(size: str = "16Mi", storage_class: str = "") -> dict[str, str]:
    return {"size": size, "storage_class": storage_class}


def overlay(variable: str, stage: str, **over: Any) -> dict[str, Any]:
    return {"variable": variable, "stage": stage, "over": over}


def test_what_cannot_be_changed_is_refused_by_its_variable_before_anything_is(own_space: Space) -> None:
    """The lab's storage class lets no volume grow; a volume that nobody mounts is bound by nobody."""
    space = own_space
    assert not begin(space, check=True, volume=volume(), overlays=[overlay("x", "database", Service={})]).failed
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    template = {"metadata": {"name": "data"}, "spec": claim}
    labels = {"app": "server"}
    pods = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "server", "image": "none"}]}}
    spec = {"serviceName": "server", "replicas": 0, "selector": {"matchLabels": labels}, "template": pods}
    spec["volumeClaimTemplates"] = [template]
    server = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "server"}, "spec": spec}
    door = {"selector": labels, "ports": [PORT]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "door"}, "spec": door}
    space.keep("database", [server, service])
    name = {"name": "data-server-0"}
    space.make({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": name, "spec": claim})
    taken = {"type": "NodePort", "selector": labels, "ports": [PORT]}
    space.make({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}, "spec": taken})
    (port,) = space.get("service", "taken")["spec"]["ports"]
    before = space.versions()
    of = space.get("persistentvolumeclaim", "data-server-0")["spec"]["storageClassName"]
    for wanted, words in (
        (volume("32Mi"), "titanic_database_storage: the volume data-server-0 has 16Mi and cannot grow ("),
        (volume("1Mi"), "titanic_database_storage: the volume data-server-0 has 16Mi, and none gets smaller. Set it"),
        (volume("16Mi", "other"), f"titanic_database_storage_class: the volume data-server-0 is of the class {of}, "),
    ):
        for check in (True, False):
            (problem,) = begin(space, check=check, volume=wanted)["problems"]
            assert problem.startswith(words)
    overlays = [
        overlay("titanic_database_kubernetes_overrides", "database", StatefulSet={"spec": {"serviceName": "other"}}),
        overlay(
            "titanic_api_node_port",
            "database",
            Service={"spec": {"type": "NodePort", "ports": [PORT | {"nodePort": port["nodePort"]}]}},
        ),
        overlay("titanic_x", "database", Service={"spec": {"clusterIP": "None"}}),
        overlay("titanic_y", "database", StatefulSet={"spec": {"replicas": "some"}}),
    ]
    for check in (True, False):
        found = begin(space, check=check, overlays=overlays)["problems"]
        assert [problem.partition(":")[0] for problem in found] == [each["variable"] for each in overlays]
        assert "the cluster refuses StatefulSet server: " in found[0]
        assert "provided port is already allocated" in found[1]
        assert "field is immutable" in found[2] or "may not change once set" in found[2]
    assert space.versions() == before, "the lock was taken, or something was changed"
    good = [overlay("x", "database", StatefulSet={"spec": {"minReadySeconds": 1}})]
    assert not begin(space, volume=volume("16384Ki", of), overlays=good).failed


def limited(space: Space, place: Path) -> Space:
    """The namespace as an account of its own sees it."""
    config = yaml.safe_load(Path(space.options["kubeconfig"]).read_text())
    token = space.kubectl("create", "token", "titanic-job").strip()
    for entry in config["users"]:
        entry["user"] = {"token": token}
    (place / "limited").write_text(yaml.safe_dump(config))
    return Space(space.options | {"kubeconfig": str(place / "limited")})


def test_rights_that_are_missing_are_named_before_anything_is_done(free: Space, place: Path) -> None:
    rule = {"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["get", "list"]}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "limited"}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "limited"}
    subjects = [{"kind": "ServiceAccount", "name": "titanic-job", "namespace": free.name}]
    free.make(role | {"kind": "Role", "rules": [rule]})
    free.make(role | {"kind": "RoleBinding", "roleRef": reference, "subjects": subjects})
    (problem,) = begin(limited(free, place))["problems"]
    assert problem.startswith("titanic_cluster: these credentials may not ")
    assert problem.endswith("Use others, or have an administrator make some (playbooks/make-deployer.yml).")
    for words in ("create/patch/update/delete configmaps", "create/delete pods", "get/list/create/patch/delete jobs"):
        assert words in problem
    assert f"in namespace {free.name}" in problem
    assert free.get("lease", NAME) is None


class Old(KubernetesClient):
    """A cluster that is too old, which nobody keeps for tests."""

    def version(self) -> str:
        return "v1.29.4+k3s1"


def test_a_cluster_that_is_too_old_is_refused(space: Space) -> None:
    with Old.of(space.options) as cluster:
        assert problems(cluster, NOTHING_ASKED) == [
            "titanic_cluster: the cluster is v1.29.4+k3s1, 1.30 or later is needed. Upgrade it."
        ]
    with KubernetesClient.of(space.options) as cluster:
        assert problems(cluster, NOTHING_ASKED) == []
        assert missing(cluster, [need("Namespace", name=None, default=None)]) == []


def test_a_cluster_that_cannot_be_talked_to_is_named_by_its_variable(space: Space, place: Path) -> None:
    for options, words in (
        ({"context": "elsewhere"}, 'context "elsewhere" does not exist'),
        ({"kubectl": "/nowhere/kubectl"}, "the program /nowhere/kubectl cannot be run"),
        ({"kubeconfig": f"{place}/none"}, f"{place}/none"),
    ):
        message = begin(Space(space.options | options)).message
        assert message.startswith("titanic_cluster: ")
        assert words in message
        assert message.endswith(". Check kubectl, kubeconfig and context, and that the cluster is up.")


def test_two_runs_at_once_are_one_run(free: Space) -> None:
    owners = [asdict(Owner(f"host-{number}.example", "x", number, 1)) for number in range(3)]
    given = {"cluster": free.options, "state": "present", "adopt": True}
    runs = [start_module("kubernetes_lock", given | {"owner": owner}) for owner in owners]
    assert sorted(finish_module(run).failed for run in runs) == [False, True, True]


def test_what_there_is_is_told_for_a_plan(free: Space) -> None:
    thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "part"}, "data": {"a": "1"}}
    free.keep("unit", [thing])
    seen = begin(free, check=True, looks=True)["reality"]
    assert seen["the last release in the ledger"] == "none"
    assert len(seen["the ConfigMap part"]) > 8
    free.kubectl("annotate", "configmap", "part", "a=b")
    assert begin(free, check=True, looks=True)["reality"] == seen
    free.kubectl("patch", "configmap", "part", "--patch", '{"data": {"a": "2"}}')
    assert begin(free, check=True, looks=True)["reality"] != seen
    free.kubectl("delete", "configmap", "part")
    assert begin(free, check=True, looks=True)["reality"]["the ConfigMap part"] == "none"


def test_an_account_with_the_rights_of_a_deployer_may_begin(free: Space, place: Path) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "deployer"}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "deployer"}
    subjects = [{"kind": "ServiceAccount", "name": "titanic-job", "namespace": free.name}]
    free.make(role | {"kind": "Role", "rules": rules()})
    free.make(role | {"kind": "RoleBinding", "roleRef": reference, "subjects": subjects})
    deployer = limited(free, place)
    # What belongs to all it may not look at, and so is not told of.
    needs = [need("IngressClass", "networking.k8s.io/v1", name="no-such-class")]
    assert not begin(deployer, required_resources=needs).changed
    assert not deployer.run("kubernetes_lock", state="absent", owner=ME).failed
    assert free.get("lease", NAME) is None
    free.kubectl("delete", "rolebinding", "deployer")
