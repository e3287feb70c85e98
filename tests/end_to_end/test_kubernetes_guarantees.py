"""What a deployment promises on a cluster beside its releases: who reaches whom, how many there are, what is kept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bench.kubernetes import manifests
from tests.certificates import new_certificate
from tests.cluster import Cluster
from tests.end_to_end.switch.site import KubernetesSite, new_site

SECONDS = 120
# A scale-down comes after the metrics of a quiet minute, and when the last scale-up is long enough ago.
QUIET_SECONDS = 240
POD = "app.kubernetes.io/component"
PYTHON = "127.0.0.1:5055/library/python:3.13-slim-trixie"
# The network of all pods, the ingress controller's too: roles/lab_cluster/vars/main.yml.
PODS = "10.244.0.0/24"
# Where that network begins: this machine, as the controller sees it.
HERE = "10.244.0.1"
# A stranger tries every way to the database that it could find: its name in each form, and its address.
REACH = """
import socket, sys
for host in sys.argv[1:]:
    try:
        socket.create_connection((host, 5432), 3).close()
        print("reached", host)
    except OSError as error:
        print("failed", host)
"""
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 12345,
    "seccompProfile": {"type": "RuntimeDefault"},
}
HARDENED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
# Up and down within a test, and by the same rules otherwise.
QUICK = {
    "scaleDown": {"stabilizationWindowSeconds": 15, "policies": [{"type": "Percent", "value": 50, "periodSeconds": 15}]}
}
# No more than it took: 16 objects are each looked at and tried out, in eight stages.
MOST_CALLS = 110

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def site() -> Iterator[KubernetesSite]:
    """A site with an autoscaler that is quick to go down again."""
    try:
        cluster = Cluster.found()
    except LookupError as reason:
        pytest.skip(str(reason))
    overrides = {"HorizontalPodAutoscaler": {"spec": {"behavior": QUICK}}}
    target = {"type": "Utilization", "averageUtilization": 400}
    memory = {"type": "Resource", "resource": {"name": "memory", "target": target}}
    settings = {
        "titanic_api_max_replicas": 4,
        "titanic_api_scaling_metrics": [memory],
        "titanic_api_kubernetes_overrides": overrides,
        "titanic_target_scrape_namespaces": ["kube-system"],
    }
    with new_site(cluster, **settings) as made:
        assert isinstance(made, KubernetesSite)
        made.succeed()
        yield made


def kubectl(site: KubernetesSite, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """What became of a command in the site's namespace."""
    return site.cluster.run("--namespace", site.namespace, *words, text=text)


def eventually(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} took longer than {seconds} s"
        time.sleep(1)


def stranger(site: KubernetesSite, component: str, namespace: str, **container: Any) -> dict[str, Any]:
    """A pod that waits to be asked something."""
    main = {"name": "main", "image": PYTHON, "command": ["sleep", "600"], "securityContext": HARDENED}
    labels = {POD: component, "app.kubernetes.io/managed-by": "whitestar.deploy"}
    metadata = {"name": f"stranger-{component}", "namespace": namespace, "labels": labels}
    spec = {"containers": [main | container], "securityContext": RESTRICTED, "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def reached(site: KubernetesSite, namespace: str, name: str, *hosts: str) -> list[str]:
    """Which of these the pod reaches on PostgreSQL's port."""
    words = ["--namespace", namespace, "exec", name, "--", "python", "-c", REACH, *hosts]
    return re.findall(r"^reached (\S+)", site.cluster(*words), re.MULTILINE)


def test_only_the_api_and_its_jobs_reach_the_database(site: KubernetesSite) -> None:
    (database,) = site.pods("database")
    hosts = [
        "titanic-database",
        f"titanic-database.{site.namespace}",
        f"titanic-database.{site.namespace}.svc.cluster.local",
        f"titanic-database-0.titanic-database.{site.namespace}.svc.cluster.local",
        database["status"]["podIP"],
    ]
    elsewhere = f"{site.namespace}-elsewhere"
    site.cluster("create", "namespace", elsewhere)
    try:
        pods = [
            stranger(site, "other", site.namespace),
            stranger(site, "api", elsewhere),
            stranger(site, "job", site.namespace),
        ]
        site.cluster("apply", "--filename", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
        for pod in pods:
            where, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            site.cluster("--namespace", where, "wait", "--for=condition=Ready", "--timeout=100s", f"pod/{name}")
        assert reached(site, site.namespace, "stranger-other", *hosts) == []
        assert reached(site, elsewhere, "stranger-api", *hosts[1:]) == [], "labels count in one namespace only"
        assert reached(site, site.namespace, "stranger-job", *hosts) == hosts, "the test can reach it at all"
    finally:
        site.cluster("delete", "namespace", elsewhere, "--wait=false")
        kubectl(site, "delete", "pod", "stranger-other", "stranger-job", "--grace-period=0", "--force")


def test_the_api_reaches_nothing_but_its_database_and_the_names(site: KubernetesSite) -> None:
    program = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    (api, *_) = site.pods("api")
    (other,) = site.cluster.get("ingress", "pods")[:1]
    # The node itself, with the cluster's own API, is not subject to policies in most networks, nor in this one.
    place = [other["status"]["podIP"], "8000"]
    done = kubectl(site, "exec", api["metadata"]["name"], "--", "python", "-c", program, *place)
    assert done.returncode != 0, place
    assert "TimeoutError" in done.stderr or "timed out" in done.stderr, done.stderr


def test_what_a_later_stage_cannot_have_is_refused_before_the_first_changes(site: KubernetesSite) -> None:
    """The target's stage would change here, and does not: the Service of the api's stage has a port that cannot be."""
    quota = {"ResourceQuota": {"metadata": {"annotations": {"example.org/changed": "yes"}}}}
    port = {"Service": {"spec": {"ports": [{"name": "http", "port": 70000}]}}}
    wrong = {"titanic_target_kubernetes_overrides": quota, "titanic_api_kubernetes_overrides": port}
    refused = site.refuse("-e", json.dumps(wrong))
    assert "the cluster refuses Service titanic-api" in " ".join(refused.split())
    (found,) = site.get("resourcequota")
    assert "example.org/changed" not in found["metadata"].get("annotations", {})


def test_a_pod_that_asks_for_more_is_refused(site: KubernetesSite) -> None:
    privileged = stranger(site, "privileged", site.namespace, securityContext={"privileged": True})
    done = kubectl(site, "apply", "--filename", "-", text=json.dumps(privileged))
    assert 'violates PodSecurity "restricted' in done.stderr


def test_no_pod_of_ours_has_a_token_or_may_do_anything(site: KubernetesSite) -> None:
    for pod in site.get("pods"):
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["serviceAccountName"] != "default"
    for account in ("titanic-api", "titanic-database", "titanic-job"):
        who = f"--as=system:serviceaccount:{site.namespace}:{account}"
        for what in (["get", "secrets"], ["create", "pods"], ["get", "configmaps"]):
            assert kubectl(site, "auth", "can-i", *what, who).stdout.strip() == "no"


def test_an_account_of_its_own_deploys_and_may_do_nothing_elsewhere(site: KubernetesSite) -> None:
    file = site.context.parent / "deployer.kubeconfig"
    made = ["-e", f"titanic_target_deployer_kubeconfig={file}", "-e", "titanic_target_deployer_days=1"]
    assert site.changed(site.succeed(*made, playbook="playbooks/make-deployer.yml")) == 3
    assert site.changed(site.succeed(*made, playbook="playbooks/make-deployer.yml")) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    cluster = site.settings["titanic_cluster"]
    own = ["-e", json.dumps({"titanic_cluster": cluster | {"kubeconfig": str(file)}})]
    assert site.changed(site.succeed(*own)) == 0
    site.settings["titanic_api_environment"] = {"TITANIC_POOL_SIZE": 5}
    assert site.changed(site.succeed("--tags", "api", *own)) > 0
    words = [site.cluster.program, "--kubeconfig", str(file)]
    for what in (
        ["get", "pods", "-A"],
        ["get", "secrets", "-n", "kube-system"],
        ["delete", "namespace", site.namespace],
    ):
        done = subprocess.run([*words, *what], capture_output=True, text=True)
        assert "forbidden" in done.stderr, done
    label = ["label", "namespace", site.namespace, "pod-security.kubernetes.io/enforce=privileged", "--overwrite"]
    assert "forbidden" in subprocess.run([*words, *label], capture_output=True, text=True).stderr


def test_credentials_that_may_too_little_are_refused_by_what_they_lack(site: KubernetesSite) -> None:
    file = site.context.parent / "weak.kubeconfig"
    kubectl(site, "create", "serviceaccount", "weak")
    token = kubectl(site, "create", "token", "weak").stdout.strip()
    config = json.loads(site.cluster("config", "view", "--raw", "--output", "json"))
    config["users"][0]["user"] = {"token": token}
    file.write_text(json.dumps(config))
    cluster = site.settings["titanic_cluster"] | {"kubeconfig": str(file)}
    began = time.monotonic()
    output = " ".join(site.refuse("-e", json.dumps({"titanic_cluster": cluster})).split())
    assert "titanic_cluster: these credentials may not" in output
    assert "deployments" in output
    assert "make-deployer.yml" in output
    assert time.monotonic() - began < SECONDS


def test_a_drain_takes_one_pod_at_a_time(site: KubernetesSite) -> None:
    eventually(lambda: len(site.pods("api")) >= 2, "two pods")
    site.serving("api")
    names = [pod["metadata"]["name"] for pod in site.pods("api")]

    def evicted(name: str) -> subprocess.CompletedProcess[str]:
        wanted = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": site.namespace},
        }
        where = f"/api/v1/namespaces/{site.namespace}/pods/{name}/eviction"
        return kubectl(site, "create", "--raw", where, "--filename", "-", text=json.dumps(wanted))

    assert evicted(names[0]).returncode == 0
    done = evicted(names[1])
    assert "disruption budget" in done.stderr, done
    assert site.ask("/people?limit=1")[0] == 200
    eventually(
        lambda: len([pod for pod in site.pods("api") if pod["metadata"]["name"] not in names]) == 1, "another pod"
    )


@contextmanager
def busy(site: KubernetesSite) -> Iterator[None]:
    """Readers who ask for everyone, anew each time, until they are told to stop."""
    stop = threading.Event()

    def read() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            # What is asked differs each time, so that no answer is one that was kept.
            request = urllib.request.Request(
                f"{site.url}/people?limit={100 + number % 700}", headers={"Host": site.host}
            )
            try:
                urllib.request.urlopen(request, timeout=15).read()
            except OSError:
                time.sleep(0.1)

    readers = [threading.Thread(target=read, daemon=True) for _ in range(6)]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        stop.set()
        for reader in readers:
            reader.join(30)


def test_there_are_more_pods_under_load_and_fewer_afterwards(site: KubernetesSite) -> None:
    def replicas() -> int:
        (found,) = site.get("deployment", "titanic-api")
        return int(found["spec"]["replicas"])

    with busy(site):
        eventually(lambda: replicas() > 2, "scaling up", QUIET_SECONDS)
        assert site.changed(site.succeed("--tags", "api")) == 0, "how many there are is left alone"
    eventually(lambda: replicas() == 2, "scaling down", QUIET_SECONDS)


def versions(site: KubernetesSite) -> dict[str, str]:
    """The resourceVersion of everything in the namespace that does not change by itself."""
    kinds = (
        "configmap secret service serviceaccount pvc deployment statefulset replicaset job ingress networkpolicy pdb"
    )
    found = site.get(",".join(kinds.split())) + site.get("namespace", site.namespace)
    return {f"{thing['kind']} {thing['metadata']['name']}": thing["metadata"]["resourceVersion"] for thing in found}


def test_a_second_run_changes_nothing_and_check_mode_no_version_either(site: KubernetesSite) -> None:
    site.succeed()
    before = versions(site)
    output = site.succeed("-v")
    assert site.changed(output) == 0
    assert versions(site) == before
    changed = json.dumps(
        {"titanic_api_environment": {"TITANIC_LOG_LEVEL": "warning"}, "titanic_api_write_tokens": ["a-token"]}
    )
    assert site.changed(site.succeed("--check", "-e", changed)) >= 2
    assert versions(site) == before
    calls = [int(found) for found in re.findall(r"calls: (\d+)", output)]
    assert calls
    assert sum(calls) <= MOST_CALLS, calls


def test_the_bench_applies_what_a_run_applies(site: KubernetesSite) -> None:
    text = manifests(site)
    kinds = [thing["kind"] for thing in json.loads(text)["items"]]
    assert {"StatefulSet", "Deployment", "Ingress", "NetworkPolicy"} <= set(kinds)
    words = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--field-manager=whitestar.deploy"]
    applied = kubectl(site, *words, "--filename", "-", text=text)
    assert applied.stdout.count("serverside-applied") == len(kinds), applied


def test_planted_secrets_are_in_secrets_alone(site: KubernetesSite) -> None:
    planted = {
        "titanic_secrets_values": {"database_app_password": "planted-app", "database_owner_password": "planted-owner"},
        "titanic_api_write_tokens": ["planted-token"],
    }
    file = site.context.parent / "planted.json"
    file.write_text(json.dumps(planted))
    output = site.succeed("-vvv", "--diff", "-e", f"@{file}")
    bad = {**planted, "titanic_api_environment": {"TITANIC_TRUSTED_PROXIES": "nonsense"}}
    file.write_text(json.dumps(bad))
    refused = site.refuse("-vvv", "--diff", "--tags", "api", "-e", f"@{file}")
    assert "did not take over" in refused
    output += refused
    kinds = site.cluster("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    wanted = ",".join(kind for kind in kinds if kind not in ("secrets", "pods.metrics.k8s.io", "bindings"))
    everything = kubectl(site, "get", wanted, "--output", "json", "--show-managed-fields").stdout
    metadata = [secret["metadata"] for secret in site.get("secrets")]
    said = "".join(kubectl(site, "logs", pod["metadata"]["name"]).stdout for pod in site.get("pods"))
    arguments = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "titanic-ledger" in everything, "the search looks at something"
    for text in (output, everything, json.dumps(metadata), said, arguments.replace(sys.argv[0], "")):
        assert "planted-" not in text
        assert "cGxhbnRlZC" not in text, "in base 64"


def clients(site: KubernetesSite) -> set[str]:
    """Who has asked, as the API's pods log it."""
    return set(re.findall(r'"client": ?"([^"]*)"', site.logs()))


def test_https_at_an_ingress_with_a_given_certificate(site: KubernetesSite) -> None:
    """The run itself asks, and trusts nothing but that certificate; the next one is served without a new pod.

    Who is trusted to say whose request it is are the controller's pods: the client in the log is this machine.
    """
    assert HERE not in clients(site)
    pods = []
    for certificate in (new_certificate(site.host), new_certificate(site.host)):
        settings = {"titanic_api_tls": "given", "titanic_api_port": 443, **certificate.settings}
        settings["titanic_api_trusted_proxies"] = [PODS]
        https = ["-e", json.dumps(settings)]
        assert f"people at https://{site.host}/people" in site.succeed("--tags", "secrets,api", *https)
        pods.append({pod["metadata"]["uid"] for pod in site.pods("api")})
    assert pods[0] == pods[1]
    assert HERE in clients(site)
    assert site.changed(site.succeed(*https)) == 0
