"""The cluster for tests is a real one: it runs what a provider's would, refuses what one would, and leaves no trace.

The one that the suite has up for others is used, after them, and taken down; one that was there before them is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interface import ROOT

CLUSTER = Path("/var/lib/titanic-lab/cluster")  # the default of lab_cluster_directory
ENGINE = Path("/var/lib/titanic-lab/engine/bin")
CACHE = Path("/var/cache/titanic-lab")
REGISTRY = "127.0.0.1:5055/library"
NODE = "10.243.0.2"
NAMESPACE = "lab-test"
# Building the programs takes ten minutes of two cores that do nothing else.
UP_SECONDS = 3000
WAIT_SECONDS = 300
CONNECTING_SECONDS = 10
# When a system asks again for a connection that nobody has answered (RFC 6298: after a second).
SENT_AGAIN_SECONDS = 0.95
HARDENED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(UP_SECONDS),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can bring up a cluster"),
    pytest.mark.skipif(not (ENGINE / "containerd").exists(), reason="the lab has no engine: run make lab"),
    pytest.mark.skipif(
        not ((CACHE / "kubernetes").is_dir() or shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")),
        reason="the programs of a cluster have not been built here, and there is no Go to build them with",
    ),
]


def run(name: str, directory: Path = CLUSTER, **environment: str) -> tuple[int, str]:
    """Run one of the lab's playbooks; its exit status and what it printed."""
    places = f"lab_cluster_directory={directory} lab_cluster_cache={CACHE}"
    command = ["ansible-playbook", f"playbooks/{name}.yml", "--extra-vars", places]
    kept = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    done = subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, timeout=UP_SECONDS)
    return done.returncode, done.stdout + done.stderr


def played(name: str, **environment: str) -> str:
    """What a playbook printed that came to a good end."""
    status, printed = run(name, CLUSTER, **environment)
    assert status == 0, printed
    return printed


def asked(*words: str, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run kubectl as the administrator."""
    command = [str(CLUSTER / "bin/kubectl"), "--kubeconfig", str(CLUSTER / "kubeconfig/admin"), *words]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=WAIT_SECONDS, check=check)


def applied(*objects: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Apply objects; those with a namespace in the tests' own."""
    return asked("apply", "--filename", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def policy(name: str, *lets_in: dict[str, Any]) -> dict[str, Any]:
    """A NetworkPolicy that lets nobody ask the server but by these rules."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": list(lets_in),
        },
    }


def eventually(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} took longer than {seconds} s\n{asked('get', 'all', '-A').stdout}"
        time.sleep(0.5)


def traces() -> dict[str, Any]:
    """What a cluster could leave behind on the machine."""
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return {
        "namespaces": [line for line in listed.splitlines() if "titanic" in line or "cni-" in line],
        "routes": [line for line in routes.splitlines() if "titanic" in line],
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(CLUSTER) in line],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob("*/kubepods*")],
        "processes": [command for command in commands if f"{CLUSTER}/".encode() in command],
        "files": [path for path in ("/var/lib/cni", "/var/lib/kubelet", str(CLUSTER)) if Path(path).exists()],
    }


def pod(name: str, image: str, command: list[str], **more: Any) -> dict[str, Any]:
    """A pod that Pod Security `restricted` admits, with one container."""
    container = {"name": "main", "image": f"{REGISTRY}/{image}", "command": command, "securityContext": HARDENED}
    security = {"runAsNonRoot": True, "runAsUser": 999, "fsGroup": 999, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [container | more.pop("container", {})], "securityContext": security, **more}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def service(name: str, port: int) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    spec = {"selector": {"app": name}, "ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """The cluster with a namespace, a volume, a server in a pod of its own and a caller."""
    played("cluster-up")
    metadata = {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    volume = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
    serve = ["caddy", "respond", "--listen", ":8080", "here I am"]
    own = {"namespace": NAMESPACE, "name": "data"}
    applied(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": own, "spec": claim},
        pod("server", "caddy:2", serve),
        service("server", 8080),
        pod("caller", "postgres:17", ["sleep", "3000"], container=mount, **volume),
    )
    asked("--namespace", NAMESPACE, "wait", "--for=condition=Ready", "--timeout=280s", "pod", "--all")
    yield
    if CLUSTER.is_dir():
        asked("delete", "namespace", NAMESPACE, "--ignore-not-found")


def called(address: str = "server", seconds: int = 3) -> str:
    """What the server says to the caller over HTTP; empty if it cannot be reached."""
    script = f"exec 3<>/dev/tcp/{address}/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3"
    inside = ["exec", "caller", "--", "timeout", str(seconds), "bash", "-c", script]
    return asked("--namespace", NAMESPACE, *inside, check=False).stdout


@pytest.mark.usefixtures("cluster")
def test_a_second_run_changes_nothing() -> None:
    assert "changed=0" in played("cluster-up")
    assert "Ready" in asked("get", "nodes").stdout


@pytest.mark.usefixtures("cluster")
def test_pods_find_services_and_keep_what_they_write() -> None:
    for name in ("server", "server.lab-test.svc.cluster.local"):
        eventually(lambda name=name: called(name) == "here I am", f"an answer of {name}")  # type: ignore[misc]
    asked("--namespace", NAMESPACE, "exec", "caller", "--", "touch", "/data/kept")
    (kept,) = (CLUSTER / "volumes").glob("*/kept")
    assert (kept.stat().st_uid, kept.parent.stat().st_uid, kept.parent.stat().st_gid) == (999, 0, 999)


@pytest.mark.usefixtures("cluster")
def test_network_policies_are_enforced() -> None:
    applied(policy("closed"))
    eventually(lambda: called() == "", "closing")
    asked("--namespace", NAMESPACE, "delete", "networkpolicy", "closed")
    eventually(lambda: called() == "here I am", "opening")


@pytest.mark.usefixtures("cluster")
def test_no_connection_is_lost_while_it_waits_for_the_policy_agent() -> None:
    # Without any policy the agent has nothing to ask the kernel for.
    applied(policy("open", {}))
    eventually(lambda: called() == "here I am", "opening")
    server = asked("--namespace", NAMESPACE, "get", "service", "server", "--output", "json")
    address = json.loads(server.stdout)["spec"]["clusterIP"]
    taken: list[float] = []
    until = time.monotonic() + CONNECTING_SECONDS

    def connect() -> None:
        while (begun := time.monotonic()) < until:
            socket.create_connection((address, 8080), WAIT_SECONDS).close()
            taken.append(time.monotonic() - begun)

    threads = [threading.Thread(target=connect) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked("--namespace", NAMESPACE, "delete", "networkpolicy", "open")
    lost = [seconds for seconds in taken if seconds > SENT_AGAIN_SECONDS]
    assert len(taken) > 1000
    assert len(lost) < CONNECTING_SECONDS / 2, f"{len(lost)} of {len(taken)} had to ask again"


@pytest.mark.usefixtures("cluster")
def test_pod_security_is_enforced() -> None:
    privileged = pod("root", "caddy:2", ["caddy"], container={"securityContext": {"privileged": True}})
    refused = asked("apply", "--filename", "-", text=json.dumps(privileged), check=False)
    assert 'violates PodSecurity "restricted:latest": privileged' in refused.stderr


@pytest.mark.usefixtures("cluster")
def test_the_ingress_answers_on_the_node_s_address() -> None:
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "server", "port": {"number": 8080}}}}
    applied(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "server", "namespace": NAMESPACE},
            "spec": {"ingressClassName": "traefik", "rules": [{"host": "server.test", "http": {"paths": [path]}}]},
        }
    )
    ask = ["curl", "--silent", "--max-time", "3", "--header", "Host: server.test", f"http://{NODE}/"]
    eventually(lambda: subprocess.run(ask, capture_output=True).stdout == b"here I am", "the Ingress")


@pytest.mark.usefixtures("cluster")
def test_metrics_are_those_of_pods() -> None:
    pods = ["--namespace", "kube-system", "top", "pods", "--no-headers"]
    eventually(lambda: "coredns" in asked(*pods, check=False).stdout, "metrics of pods")


@pytest.mark.usefixtures("cluster")
def test_nothing_of_it_listens_in_the_machine_s_own_network_but_its_link() -> None:
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    ours = [line.split()[3] for line in listening.splitlines() if "kube" in line or "etcd" in line or "forward" in line]
    assert ours == ["10.243.0.1:5055"]


@pytest.mark.usefixtures("cluster")
def test_a_second_one_on_the_same_machine_is_refused() -> None:
    other = CLUSTER.with_name("another-cluster-of-tests")
    status, printed = run("cluster-up", other)
    assert status != 0
    assert "a kubelet runs on this machine" in printed
    assert not other.exists()


def test_the_cluster_of_kubeconfig_is_used_where_it_is_set() -> None:
    printed = played("cluster-up", KUBECONFIG="/somewhere/kubeconfig")
    assert "the cluster of /somewhere/kubeconfig" in printed
    assert "changed=0" in printed


ours = pytest.mark.skipif("TESTS_KEEP_CLUSTER" in os.environ, reason="the cluster was there before: it is not ours")


@ours
@pytest.mark.usefixtures("cluster")
def test_a_cluster_of_which_a_daemon_has_died_is_made_anew() -> None:
    record = json.loads((CLUSTER / "run/kubelet.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    assert "changed=1" in played("cluster-up")
    assert NAMESPACE not in asked("get", "namespaces").stdout


@ours
@pytest.mark.usefixtures("cluster")
def test_it_goes_without_a_trace() -> None:
    before: dict[str, str] = json.loads((CLUSTER / "before.json").read_text())["kernel"]
    assert any(traces().values())
    assert "changed=1" in played("cluster-down")
    assert not any(traces().values()), traces()
    assert {name: (Path("/proc/sys") / name).read_text() for name in before} == before
    assert "changed=0" in played("cluster-down")
