# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody changes in a namespace is found by path, with who and when; what the cluster itself does is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import (
    SECRETS,
    STAGES,
    Stage,
    applied,
    secret_names,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.drift import replicas_drift
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.lease import ClusterLock
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.maintenance import select
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import LEDGER, ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rollout import Rollout
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import Owner
from ansible_collections.whitestar.deploy.tests.cluster_helpers import Space, objects_of, tiny_release
from ansible_collections.whitestar.deploy.tests.helpers import Result

PLANTED = "planted-password-of-the-namespace"
SELECTOR = {"app.kubernetes.io/name": "titanic", "app.kubernetes.io/component": "api"}


def thing(kind: str, name: str, api_version: str = "v1", **rest: Any) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **rest}


SERVICE = thing(
    "Service", "titanic-api", spec={"selector": SELECTOR, "ports": [{"name": "http", "port": 80, "targetPort": 8000}]}
)
LIMITS = thing("LimitRange", "titanic", spec={"limits": [{"type": "Container", "default": {"cpu": 0.5}}]})
POLICY = thing(
    "NetworkPolicy",
    "titanic-api",
    "networking.k8s.io/v1",
    spec={
        "podSelector": {"matchLabels": SELECTOR},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 8000}]}],
    },
)
SCALER = thing(
    "HorizontalPodAutoscaler",
    "titanic-api",
    "autoscaling/v2",
    spec={
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "titanic-api"},
        "minReplicas": 2,
        "maxReplicas": 5,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
            }
        ],
    },
)
ACCOUNT = thing("ServiceAccount", "keeper", automountServiceAccountToken=False)
# Roles have none in a stage; what is recorded of one tells of its content, and not what that is.
HELD = thing("Secret", "held", stringData={"password": PLANTED})
STAGE = [thing("ConfigMap", "words", data={"one": "1", "two": "2"}), SERVICE, LIMITS, POLICY, SCALER, ACCOUNT]


def look(space: Space, *, check: bool = False) -> Result:
    return space.run("kubernetes_drift_info", check=check)


def lines(space: Space) -> list[str]:
    """What differs, without when; no secret is told."""
    seen = look(space)
    assert not seen.changed
    assert PLANTED not in seen.output
    return [
        each["text"].replace(f" at {each['at']}", "") if each["at"] else each["text"] for each in seen["differences"]
    ]


def deploy(space: Space) -> None:
    """Secrets, a stage, and a release that is paused, so that no pod comes of it."""
    readers = {"titanic-api": ["database_app_password"]}
    space.run("kubernetes_secrets", given={"database_app_password": PLANTED}, readers=readers)
    assert not space.keep("unit", STAGE).failed
    workload = tiny_release("a" * 12)
    settings, deployment = objects_of(workload)
    deployment["spec"]["paused"] = True
    for volume in deployment["spec"]["template"]["spec"]["volumes"]:
        if "secret" in volume:
            volume["secret"]["secretName"] = "titanic-api"
    with KubernetesClient.of(space.options) as cluster:
        stage = Stage(cluster, "held", [HELD])
        stage.apply(stage.changes(check=False))
        records = ClusterRecords(cluster)
        facts = {"image": "a" * 12, "config": "c", "schema_required": "1", "schema_tolerates": "1", "version": "1"}
        known = {"by": "alice@laptop", "why": "deploy", "outcome": "succeeded", "release": workload["release"]}
        ledger, _ = records.ledger().add(**facts, **known)
        records.write(ledger, {workload["release"]: [settings, deployment]})
        for wanted in Rollout(cluster, [settings, deployment], (2, 5)).objects:
            cluster.apply(wanted)


@pytest.fixture(scope="module")
def deployed(space: Space) -> Space:
    deploy(space)
    return space


def test_nothing_is_not_as_it_was_applied(own_space: Space) -> None:
    assert lines(own_space) == [
        f"namespace {own_space.name}: nothing is recorded in it: all of it is gone, or nothing has been deployed"
    ]
    deploy(own_space)
    before = own_space.versions()
    assert lines(own_space) == []
    assert own_space.keep("unit", STAGE).changed is False
    assert look(own_space, check=True)["differences"] == []
    assert own_space.versions() == before


def test_what_the_cluster_does_by_itself_is_no_drift(deployed: Space) -> None:
    """The autoscaler's number within its bounds, whoever writes it; the mark of the rollout, status."""
    deployed.kubectl("scale", "deployment/titanic-api", "--replicas=3")
    deployed.kubectl("annotate", "deployment/titanic-api", "example.org/note=kept")
    assert lines(deployed) == []


def test_a_number_of_pods_that_nobody_may_choose_is_found(deployed: Space, kubernetes: KubernetesClient) -> None:
    deployed.kubectl("scale", "deployment/titanic-api", "--replicas=4")
    wanted = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "titanic-api"}}
    (found,) = replicas_drift(kubernetes, wanted, [])
    assert str(found).startswith("Deployment titanic-api: spec.replicas: was set to 4 (by kubectl")
    assert list(replicas_drift(kubernetes, wanted, [SCALER])) == []
    few = SCALER | {"spec": SCALER["spec"] | {"maxReplicas": 3}}
    assert len(list(replicas_drift(kubernetes, wanted, [few]))) == 1
    assert lines(deployed) == []


def test_the_message_of_a_maintenance_is_no_drift(deployed: Space, kubernetes: KubernetesClient) -> None:
    record = {"message": "m", "retry_seconds": 1, "by": "alice", "at": "now"}
    deployed.make(thing("ConfigMap", "titanic-maintenance", data={"record.json": json.dumps(record)}))
    (line,) = lines(deployed)
    assert line.startswith('Service titanic-api: spec.selector["app.kubernetes.io/component"]: ')
    select(kubernetes, maintained=True)
    assert lines(deployed) == []
    deployed.kubectl("delete", "configmap", "titanic-maintenance")
    select(kubernetes, maintained=False)
    assert lines(deployed) == []


def test_a_failed_release_is_no_drift(deployed: Space, kubernetes: KubernetesClient) -> None:
    records = ClusterRecords(kubernetes)
    ledger, entry = records.ledger().add(
        release="b",
        image="b",
        config="c",
        schema_required="1",
        schema_tolerates="1",
        version="2",
        by="bob@laptop",
        why="deploy",
        outcome="started",
    )
    records.write(ledger.finish(entry.number, "failed", "it was bad"), {})
    assert lines(deployed) == []


def test_newer_secrets_that_pods_were_not_given_are_no_drift(deployed: Space) -> None:
    readers = {"titanic-api": ["database_app_password"]}
    given = {"database_app_password": f"{PLANTED}-2"}
    assert deployed.run("kubernetes_secrets", given=given, readers=readers).changed
    assert lines(deployed) == []


def test_a_run_at_work_is_told_of(deployed: Space, kubernetes: KubernetesClient) -> None:
    owner = Owner("another.example", "carol", 1, 1)
    ClusterLock(kubernetes).acquire(owner, 3600)
    (warning,) = look(deployed).warnings
    assert "a run is at work, or was cut off" in warning
    assert "carol@another.example" in warning
    assert ClusterLock(kubernetes).release(owner)


def kubectl(*words: str, text: str = "") -> Callable[[Space], None]:
    """Somebody uses kubectl."""

    def use(space: Space) -> None:
        space.kubectl(*words, text=text)

    return use


def patch(what: str, kind: str, change: str) -> Callable[[Space], None]:
    """Somebody patches an object."""
    return kubectl("patch", what, f"--type={kind}", f"--patch={change}")


DEPLOYMENT = "Deployment titanic-api: spec.template"
SIDECAR = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "debian"}]}}}}
PEER = [{"from": [{"podSelector": {}, "namespaceSelector": {}}], "ports": [{"port": 8000}]}]
# Each is done after the others before it: what is expected is what comes to the list, and what goes from it.
CASES: dict[str, tuple[Callable[[Space], None], list[str], list[str]]] = {
    "a value": (
        patch("configmap/words", "merge", '{"data": {"one": "9"}}'),
        ['ConfigMap words: data.one: "1" was applied, is "9" (by kubectl-patch)'],
        [],
    ),
    "back again": (
        patch("configmap/words", "merge", '{"data": {"one": "1"}}'),
        [],
        ['ConfigMap words: data.one: "1" was applied, is "9" (by kubectl-patch)'],
    ),
    "a value is removed": (
        patch("configmap/words", "json", '[{"op": "remove", "path": "/data/two"}]'),
        ['ConfigMap words: data.two: removed, was "2"'],
        [],
    ),
    "a value is added": (
        patch("configmap/words", "merge", '{"data": {"three.txt": "3"}}'),
        ['ConfigMap words: data["three.txt"]: added: "3" (by kubectl-patch)'],
        [],
    ),
    "a label of ours": (
        kubectl("label", "--overwrite", "service/titanic-api", "app.kubernetes.io/managed-by=bob"),
        [
            'Service titanic-api: metadata.labels["app.kubernetes.io/managed-by"]: "whitestar.deploy" was applied',
        ],
        [],
    ),
    "an image": (
        kubectl("set", "image", "deployment/titanic-api", "api=debian"),
        [f'{DEPLOYMENT}.spec.containers[api].image: "IMAGE" was applied, is "debian" (by kubectl-set)'],
        [],
    ),
    "a variable": (
        kubectl("set", "env", "deployment/titanic-api", f"DEBUG={PLANTED}-2"),
        [
            f'{DEPLOYMENT}.spec.containers[api].env: added: [{{"name": "DEBUG", "value": "[database_app_password]"}}]',
        ],
        [],
    ),
    "a sidecar": (
        patch("deployment/titanic-api", "strategic", json.dumps(SIDECAR)),
        [f"{DEPLOYMENT}.spec.containers[side]: added: "],
        [],
    ),
    "a restart by hand": (
        patch(
            "deployment/titanic-api",
            "merge",
            '{"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}}',
        ),
        [f'{DEPLOYMENT}.metadata.annotations["kubectl.kubernetes.io/restartedAt"]: added: "now" (by kubectl-patch)'],
        [],
    ),
    "a peer in a list that goes as a whole": (
        patch("networkpolicy/titanic-api", "merge", json.dumps({"spec": {"ingress": PEER}})),
        ["NetworkPolicy titanic-api: spec.ingress[0].from[0].namespaceSelector: added: {} (by kubectl-patch)"],
        [],
    ),
    "a port that a list is keyed by": (
        patch("service/titanic-api", "json", '[{"op": "replace", "path": "/spec/ports/0/port", "value": 81}]'),
        ["Service titanic-api: spec.ports"],
        [],
    ),
    "an account": (
        patch("serviceaccount/keeper", "merge", '{"imagePullSecrets": [{"name": "other"}]}'),
        ['ServiceAccount keeper: imagePullSecrets: added: [{"name": "other"}] (by kubectl-patch)'],
        [],
    ),
    "somebody else applies": (
        kubectl(
            *("apply", "--server-side", "--field-manager=other-tool", "--filename=-"),
            text=json.dumps(thing("ServiceAccount", "keeper", automountServiceAccountToken=False)),
        ),
        ["ServiceAccount keeper: automountServiceAccountToken: is applied by somebody else too (by other-tool)"],
        [],
    ),
    "what is in a Secret": (
        patch("secret/held", "merge", '{"stringData": {"password": "by-hand-2"}}'),
        ["Secret held: data.password: is another than was applied (by kubectl-patch)"],
        [],
    ),
    "all secrets": (
        patch(f"secret/{SECRETS}", "merge", '{"stringData": {"database_app_password": "by-hand"}}'),
        [f"Secret {SECRETS}: data.database_app_password: is another than was applied (by kubectl-patch)"],
        [],
    ),
    "an object is gone": (
        kubectl("delete", "limitrange", "titanic"),
        ["LimitRange titanic: is gone"],
        [],
    ),
    "what is recorded": (
        patch(f"configmap/{LEDGER}", "merge", '{"data": {"ledger.json": "{}"}}'),
        [f'ConfigMap {LEDGER}: data["ledger.json"]: what is recorded was changed (by kubectl-patch)'],
        ["Deployment titanic-api: "],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_planted_is_found(deployed: Space, case: str) -> None:
    plant, come, gone = CASES[case]
    before = lines(deployed)
    image = deployed.get("deployment", "titanic-api")["spec"]["template"]["spec"]["containers"][0]["image"]
    plant(deployed)
    after = lines(deployed)
    new = [line for line in after if line not in before]
    assert len(new) == len(come), new
    for line, start in zip(new, come, strict=True):
        assert line.startswith(start.replace("IMAGE", image)), line
    went = [line for line in before if line not in after]
    assert all(line.startswith(tuple(gone)) for line in went) if gone else not went, went


def test_a_secret_that_is_another_or_gone_is_found(own_space: Space) -> None:
    deploy(own_space)
    with KubernetesClient.of(own_space.options) as cluster:
        name = secret_names(cluster)["titanic-api"]
    own_space.kubectl("delete", "secret", name)
    assert lines(own_space) == [f"Secret {name}: is gone"]
    own_space.make(thing("Secret", name, stringData={"database_app_password": "other"}))
    assert lines(own_space) == [f"Secret {name}: data: is another than was applied (by kubectl-create)"]
    own_space.kubectl("delete", "secret", SECRETS)
    assert f"Secret {SECRETS}: is gone" in lines(own_space)


def test_the_next_run_mends_what_it_has_applied(own_space: Space) -> None:
    deploy(own_space)
    own_space.kubectl("patch", "configmap/words", "--type=merge", '--patch={"data": {"one": "9"}}')
    own_space.kubectl("delete", "networkpolicy", "titanic-api")
    assert len(lines(own_space)) == 2
    assert own_space.keep("unit", STAGE).changed
    assert lines(own_space) == []


def test_a_run_that_was_cut_off_is_found(own_space: Space) -> None:
    """What it has recorded is what it was about to apply."""
    deploy(own_space)
    with KubernetesClient.of(own_space.options) as cluster:
        objects = applied(cluster)["unit"]
        objects[0]["data"]["one"] = "8"
        record = thing("ConfigMap", STAGES, data={"unit": json.dumps(objects)})
        cluster.request(
            "PATCH",
            cluster.address("v1", "ConfigMap", STAGES),
            record,
            "application/merge-patch+json",
            fieldManager="whitestar.deploy",
        )
    assert lines(own_space) == ['ConfigMap words: data.one: "8" was applied, is "1" (by whitestar.deploy)']


def test_no_secret_is_recorded(deployed: Space) -> None:
    assert PLANTED not in json.dumps(deployed.all("configmap"))


def test_a_database_that_does_not_run_is_found(deployed: Space) -> None:
    database = {"database": "titanic", "owner": "o", "user": "u", "labels": {"no": "pod"}, "container": "c"}
    seen = deployed.run("kubernetes_drift_info", database=database)
    assert seen["differences"][-1]["text"] == "database titanic: does not run: its pod is not ready"
