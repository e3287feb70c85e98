# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster is asked by its own API, by whatever credentials kubectl has, and what is wrong is named."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import object_label
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.pods import PodWaiter, ready
from ansible_collections.whitestar.deploy.tests.cluster_helpers import (
    PLACE,
    Space,
    fields,
    objects_of,
    refusal,
    tiny_release,
)


def children() -> list[str]:
    """The programs that this process has started and that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        if rest.split()[1] == str(os.getpid()) and "kubectl" in name:
            found.append(name)
    return found


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_a_file_that_is_not_there_is_named(kubernetes_options: dict[str, Any], place: Path) -> None:
    said = refusal(kubernetes_options | {"kubeconfig": f"{place}/none", "namespace": "n"})
    assert said.startswith("kubectl cannot talk to the cluster: ")
    assert f"{place}/none" in said


def test_a_context_that_is_not_there_is_named(kubernetes_options: dict[str, Any]) -> None:
    said = refusal(kubernetes_options | {"context": "elsewhere", "namespace": "n"})
    assert 'context "elsewhere" does not exist' in said


def test_a_cluster_that_is_not_up_does_not_answer(kubernetes_options: dict[str, Any], place: Path) -> None:
    config = yaml.safe_load(Path(kubernetes_options["kubeconfig"]).read_text())
    for entry in config["clusters"]:
        entry["cluster"]["server"] = "https://127.0.0.1:1"
    (place / "config").write_text(yaml.safe_dump(config))
    began = time.monotonic()
    said = refusal(kubernetes_options | {"kubeconfig": str(place / "config"), "namespace": "n"})
    assert "127.0.0.1:1: connect: connection refused" in said
    assert time.monotonic() - began < 10


def test_nothing_is_left_running_and_nobody_else_may_ask(space: Space) -> None:
    with KubernetesClient.of(space.options) as cluster:
        directory = Path(cluster._directory)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert cluster.version().startswith("v1.")
        assert len(children()) == 1
    assert children() == []
    assert not directory.exists()


def test_an_object_is_made_changed_and_removed(kubernetes: KubernetesClient) -> None:
    assert kubernetes.get("v1", "ConfigMap", "one") is None
    seen = kubernetes.apply(config_map("one", a="1"), check=True)
    assert seen["data"] == {"a": "1"}
    assert kubernetes.get("v1", "ConfigMap", "one") is None
    made = kubernetes.apply(config_map("one", a="1"))
    assert (
        kubernetes.apply(config_map("one", a="1"))["metadata"]["resourceVersion"]
        == (made["metadata"]["resourceVersion"])
    ), "what is as it should be was written"
    assert kubernetes.apply(config_map("one", b="2"))["data"] == {"b": "2"}
    assert made["metadata"]["managedFields"][0]["manager"] == "whitestar.deploy"
    kubernetes.delete("v1", "ConfigMap", "one")
    kubernetes.delete("v1", "ConfigMap", "one")
    assert kubernetes.get("v1", "ConfigMap", "one") is None


def test_an_object_is_replaced_only_as_it_was_read(kubernetes: KubernetesClient) -> None:
    first = kubernetes.create(config_map("two", a="1"))
    with pytest.raises(ClusterError, match=r'configmaps "two" already exists') as caught:
        kubernetes.create(config_map("two"))
    assert caught.value.status == 409
    kubernetes.replace(first | {"data": {"a": "2"}})
    with pytest.raises(ClusterError, match="has been modified") as caught:
        kubernetes.replace(first | {"data": {"a": "3"}})
    assert caught.value.status == 409


def test_objects_are_listed_by_their_labels_and_say_what_they_are(kubernetes: KubernetesClient) -> None:
    for name, labels in (("x", {"unit/of": "list"}), ("y", {"unit/of": "list", "more": "1"}), ("z", {})):
        kubernetes.create(config_map(name) | {"metadata": {"name": name, "labels": labels}})
    found = kubernetes.list("v1", "ConfigMap", **{"unit/of": "list"})
    assert [object_label(thing) for thing in found] == ["ConfigMap x", "ConfigMap y"]
    assert [
        object_label(thing) for thing in kubernetes.list("v1", "ConfigMap", **{"unit/of": "list", "more": "1"})
    ] == ["ConfigMap y"]
    assert {"x", "y", "z"} <= set(fields(kubernetes.list("v1", "ConfigMap"), "metadata", "name"))


def test_a_kind_that_is_not_known_is_named(kubernetes: KubernetesClient) -> None:
    assert kubernetes.knows("apps/v1", "Deployment")
    assert not kubernetes.knows("apps/v1", "Deploymint")
    assert not kubernetes.knows("unit.test/v1", "Thing")
    with pytest.raises(ClusterError, match=r"the cluster knows no Thing of unit\.test/v1\. Install what defines it"):
        kubernetes.get("unit.test/v1", "Thing", "one")


def test_addresses_are_those_of_the_namespace_or_of_the_cluster(kubernetes: KubernetesClient) -> None:
    place = f"/namespaces/{kubernetes.namespace}"
    assert kubernetes.address("v1", "Pod", "p", "log") == f"/api/v1{place}/pods/p/log"
    assert kubernetes.address("apps/v1", "Deployment") == f"/apis/apps/v1{place}/deployments"
    assert kubernetes.address("v1", "Namespace", "n") == "/api/v1/namespaces/n"


def test_a_kind_is_asked_for_once(kubernetes: KubernetesClient) -> None:
    kubernetes.knows("apps/v1", "Deployment")
    calls = kubernetes.calls
    kubernetes.address("apps/v1", "StatefulSet", "one")
    assert kubernetes.calls == calls


def test_a_namespace_that_is_not_there_is_named(space: Space) -> None:
    with KubernetesClient.of(space.options | {"namespace": "unit-nowhere"}) as cluster:
        for attempt in (cluster.apply, cluster.create):
            with pytest.raises(ClusterError, match=r"there is no namespace unit-nowhere") as caught:
                attempt(config_map("one"))
            assert caught.value.status == 404


def test_what_may_not_be_done_is_told_by_the_cluster_s_words(space: Space, place: Path) -> None:
    with KubernetesClient.of(space.options | {"kubeconfig": limited(space, place)}) as cluster:
        with pytest.raises(ClusterError, match=r'"system:serviceaccount:.*" cannot list resource "secrets"') as caught:
            cluster.list("v1", "Secret")
        assert caught.value.status == 403


def limited(space: Space, place: Path) -> str:
    """A kubeconfig of a ServiceAccount of the namespace, which may do nothing."""
    token = space.kubectl("create", "token", "titanic-job").strip()
    config = yaml.safe_load(Path(space.options["kubeconfig"]).read_text())
    for entry in config["users"]:
        entry["user"] = {"token": token}
    (place / "limited").write_text(yaml.safe_dump(config))
    return str(place / "limited")


def test_a_command_s_words_are_told_and_its_time_is_bounded(kubernetes: KubernetesClient) -> None:
    assert "titanic-job" in kubernetes.run("get", "serviceaccounts")
    with pytest.raises(ClusterError, match=r'kubectl get pod nobody failed \(1\): .*pods "nobody" not found'):
        kubernetes.run("get", "pod", "nobody")
    with pytest.raises(ClusterError, match="kubectl get pods --watch took longer than 1 s"):
        kubernetes.run("get", "pods", "--watch", seconds=1)
    with pytest.raises(ClusterError, match="the program /nowhere cannot be run"):
        KubernetesClient("n", kubectl="/nowhere").run("version")


def test_a_port_of_a_pod_can_be_reached_from_here(kubernetes: KubernetesClient) -> None:
    workload = tiny_release("forwarded")
    pod = objects_of(workload)[1]["spec"]["template"]
    pod["metadata"]["name"] = "forwarded"
    for container in pod["spec"]["containers"]:
        del container["envFrom"]
        container["env"] = [{"name": "TITANIC_BIND", "value": "0.0.0.0:8000"}]
        assert container["volumeMounts"][0]["mountPath"] == PLACE
    pod["spec"].pop("topologySpreadConstraints")
    kubernetes.create({"apiVersion": "v1", "kind": "Pod", **pod})
    watch = PodWaiter(kubernetes, pod["metadata"]["labels"])
    watch.until(lambda: any(ready(found) for found in watch.pods()), 60)
    with kubernetes.forwarded("forwarded", 8000) as address:
        answer = try_request(address, "/healthz")
    assert answer is not None
    assert answer.status == 200
    assert try_request(address, "/healthz") is None, "it is still forwarded"
    with (
        pytest.raises(ClusterError, match=r"port 8000 of pod nobody cannot be reached: .*not found"),
        kubernetes.forwarded("nobody", 8000),
    ):
        pass
    assert "tiny release None starts" in kubernetes.text(kubernetes.address("v1", "Pod", "forwarded", "log"))
    with pytest.raises(ClusterError, match=r'pods "nobody" not found') as caught:
        kubernetes.text(kubernetes.address("v1", "Pod", "nobody", "log"))
    assert caught.value.status == 404
