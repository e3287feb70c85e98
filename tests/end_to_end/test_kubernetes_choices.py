"""Databases that others run, secrets out of a store, other ways in: each tried on a real cluster.

External Secrets and CloudNativePG are programs that cannot be had here. Their kinds are the real ones, so that the
cluster itself says what it takes; what they would do with the objects is done by tests/operators.py, or by the test.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.certificates import new_certificate
from tests.cluster import Cluster
from tests.deployment import CONFIRMED
from tests.end_to_end.load.open_loop import BackgroundLoad, LoadPlan
from tests.end_to_end.switch.site import REGISTRY, KubernetesSite, Site, new_site
from tests.operators import DEFINITIONS, ExternalSecrets, defined

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

POSTGRESQL = f"{REGISTRY}/library/postgres:17"
PORT = 6432
NODE_PORT = 30877
ALL = tuple(DEFINITIONS)


def asking_for(kind: str, container: str, cpu: str) -> dict[str, Any]:
    """Overrides by which the pods of one kind of object ask for this much of a processor."""
    asks = {"name": container, "resources": {"requests": {"cpu": cpu}}}
    return {kind: {"spec": {"template": {"spec": {"containers": [asks]}}}}}


# One pod that asks for little: the machine has two processors, and other tests deploy to it as well.
SMALL = {
    "titanic_api_replicas": 1,
    "titanic_api_max_replicas": 1,
    "titanic_api_ready_seconds": 90,
    "titanic_api_kubernetes_overrides": asking_for("Deployment", "api", "60m"),
    "titanic_database_kubernetes_overrides": asking_for("StatefulSet", "postgresql", "50m"),
}
ROLES = """
CREATE ROLE titanic_owner LOGIN PASSWORD '{owner}';
CREATE ROLE titanic_app LOGIN PASSWORD '{app}';
CREATE DATABASE titanic OWNER titanic_owner;
REVOKE ALL ON DATABASE titanic FROM PUBLIC;
GRANT CONNECT ON DATABASE titanic TO titanic_app;
"""


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """The cluster, without which these tests are skipped."""
    try:
        return Cluster.found()
    except LookupError as reason:
        pytest.skip(str(reason))


@contextmanager
def knowing(cluster: Cluster, *kinds: str) -> Iterator[None]:
    """Have the cluster know these kinds for the time of a test, which is skipped if they cannot be had."""
    with ExitStack() as stack:
        try:
            stack.enter_context(defined(cluster, *kinds))
        except LookupError as reason:
            pytest.skip(str(reason))
        yield


@contextmanager
def small_site(cluster: Cluster, **settings: Any) -> Iterator[KubernetesSite]:
    with new_site(cluster, **SMALL, **settings) as site:
        assert isinstance(site, KubernetesSite)
        yield site


def with_(**settings: Any) -> list[str]:
    """Arguments of a run that has these settings beside those of its site."""
    return ["-e", json.dumps(settings)]


def past_the_front(site: KubernetesSite, **settings: Any) -> LoadPlan:
    """Requests to the pods' own Service: what an Ingress makes of new pods is what tests/end_to_end/switch asks."""
    return dataclasses.replace(site.ways()["the Service"], rate=10, seconds=300, **settings)


def rows(site: Site) -> int:
    status, people = site.ask("/people")
    assert status == 200, people
    return len(people)


def server(namespace: str, labels: dict[str, str], container: str, port: int, **secret: str) -> list[dict[str, Any]]:
    """PostgreSQL as somebody else would run it in a namespace, encrypted if it has a key."""
    encrypted = ["-cssl=on", "-cssl_cert_file=/run/own/tls.crt", "-cssl_key_file=/run/own/tls.key"]
    mounts = [{"name": "own", "mountPath": "/run/own"}, {"name": "data", "mountPath": "/var/lib/postgresql"}]
    first = {"name": "own", "mountPath": "/docker-entrypoint-initdb.d/first.sql", "subPath": "first.sql"}
    pod = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 999,
            "runAsGroup": 999,
            "fsGroup": 999,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": container,
                "image": POSTGRESQL,
                "args": ["postgres", f"-cport={port}", *(encrypted if "tls.key" in secret else [])],
                "env": [
                    {"name": "POSTGRES_PASSWORD_FILE", "value": "/run/own/password"},
                    {"name": "PGDATA", "value": "/var/lib/postgresql/pgdata"},
                    {"name": "PGPORT", "value": str(port)},
                ],
                "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "readinessProbe": {"exec": {"command": ["pg_isready", "-h", "127.0.0.1"]}, "periodSeconds": 1},
                "volumeMounts": [*mounts, *([first] if "first.sql" in secret else [])],
            }
        ],
        "volumes": [
            {"name": "own", "secret": {"secretName": "postgresql", "defaultMode": 0o440}},
            {"name": "data", "emptyDir": {}},
        ],
    }
    own = {"name": "postgresql", "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": own, "stringData": {"password": "planted-super", **secret}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**own, "labels": labels}, "spec": pod},
    ]


def make(cluster: Cluster, *objects: dict[str, Any]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster("apply", "--server-side", "--filename", "-", text=text)


@contextmanager
def namespace(cluster: Cluster, name: str) -> Iterator[str]:
    make(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield name
    finally:
        cluster("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def service(name: str, space: str, selector: dict[str, str], port: int) -> dict[str, Any]:
    spec = {"selector": selector, "ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": space}, "spec": spec}


def ready(cluster: Cluster, space: str) -> None:
    cluster("--namespace", space, "wait", "--for=condition=Ready", "pod/postgresql", "--timeout=90s")


def reachable(address: str, port: int) -> None:
    """Wait until a Service answers: a pod that is ready is behind it once a busy node has heard of that."""
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((address, port), 5).close()
        except OSError:
            assert time.monotonic() < deadline, f"{address}:{port} does not answer"
            time.sleep(0.5)
        else:
            return


def test_what_is_not_installed_is_named_with_its_remedy_before_anything_is_touched(cluster: Cluster) -> None:
    known = cluster("get", "crd", "--output", "name")
    if any(name in known for name in ALL):
        pytest.skip("the cluster has some of it")
    with small_site(cluster) as site:
        choices = {
            "titanic_database_kind": "cloudnative_pg",
            "titanic_secrets_source": "external_secrets",
            "titanic_secrets_store": {"vault": {"server": "https://vault.example.org", "path": "secret"}},
            "titanic_api_front": "gateway",
        }
        refused = site.refuse(*with_(**choices)) + site.refuse(*with_(titanic_api_tls="acme"))
        for words in (
            "titanic_database_kind: the cluster knows no Cluster (postgresql.cnpg.io/v1). Install the CloudNativePG",
            "titanic_secrets_source: the cluster knows no SecretStore (external-secrets.io/v1). Install the External",
            "titanic_api_front: the cluster knows no HTTPRoute (gateway.networking.k8s.io/v1). Install the Gateway API",
            "titanic_api_issuer: the cluster knows no ClusterIssuer (cert-manager.io/v1). Install cert-manager",
        ):
            assert words in " ".join(refused.split()), refused
        assert site.left() == []


SHOP = ("configmap", "secret", "service", "persistentvolumeclaim", "pod")


def shop(site: KubernetesSite) -> None:
    """Somebody's namespace of the site's name, in which a shop is: its pods look like ours, and have no limits."""
    labels = {"app.kubernetes.io/component": "api"}
    metadata = {"name": "shop", "namespace": site.namespace, "labels": labels}
    container = {"name": "shop", "image": POSTGRESQL, "command": ["sleep", "3600"]}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0}
    make(
        site.cluster,
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": site.namespace}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"open": "yes"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"key": "theirs"}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim},
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
        service("shop", site.namespace, labels, 8000),
    )
    site.cluster("--namespace", site.namespace, "wait", "--for=condition=Ready", "pod/shop", "--timeout=90s")


def theirs(site: KubernetesSite) -> list[str]:
    """What the shop is made of, and the namespace, each with its version; and who has a say over the shop's pod."""
    found = [thing for kind in SHOP for thing in site.get(kind, "shop")] + site.get("namespace", site.namespace)
    versions = []
    for thing in found:
        # A pod's own version moves with what its kubelet says of it.
        keys = ("uid", "labels") if thing["kind"] == "Pod" else ("resourceVersion", "labels")
        versions.append(f"{thing['kind']} {[thing['metadata'].get(key) for key in keys]}")
    policies = [
        policy["metadata"]["name"]
        for policy in site.get("networkpolicy")
        if policy["spec"]["podSelector"].get("matchLabels", {}).items()
        <= {"app.kubernetes.io/component": "api"}.items()
    ]
    limits = site.get("limitrange") + site.get("resourcequota")
    return [*versions, *policies, *(thing["metadata"]["name"] for thing in limits)]


def test_a_database_that_others_run(cluster: Cluster) -> None:
    """Its name verified, its passwords given and changed; a wrong authority is told of and changes nothing.

    The API shares a namespace of others, who notice nothing of it from the first refusal to the teardown.
    """
    own = secrets.token_hex(4)
    host = f"postgresql.elsewhere-{own}.svc.cluster.local"
    authority, other = new_certificate("An authority"), new_certificate("Another authority")
    certificate = new_certificate(host, authority=authority)
    passwords = {"owner": f"planted-owner-{own}", "app": f"planted-app-{own}"}
    given = {"database_owner_password": passwords["owner"], "database_app_password": passwords["app"]}
    external = {"host": host, "port": PORT, "authority": authority.certificate}
    with (
        namespace(cluster, f"elsewhere-{own}") as elsewhere,
        small_site(
            cluster,
            titanic_database_kind="external",
            titanic_database_external=external,
            titanic_secrets_values=given,
        ) as site,
    ):
        files = {
            "tls.crt": certificate.certificate,
            "tls.key": certificate.key,
            "first.sql": ROLES.format(**passwords),
        }
        make(
            cluster,
            service("postgresql", elsewhere, {"app": "postgresql"}, PORT),
            *server(elsewhere, {"app": "postgresql"}, "postgresql", PORT, **files),
        )
        ready(cluster, elsewhere)
        reachable(cluster.get(elsewhere, "service", "postgresql")[0]["spec"]["clusterIP"], PORT)

        def told(sql: str) -> str:
            words = ["exec", "--stdin", "postgresql", "--", "psql", "-qAt", "-U", "postgres", "titanic"]
            return cluster("--namespace", elsewhere, *words, text=sql)

        shop(site)
        before = theirs(site)
        assert len(before) == len(SHOP) + 1
        assert f"namespace {site.namespace} is there and was made by somebody else" in " ".join(site.refuse().split())
        site.settings["titanic_target_namespace_adopt"] = True
        site.succeed("--check")
        assert theirs(site) == before

        site.succeed()
        assert theirs(site) == before
        assert rows(site) == 887
        assert site.get("statefulset") == []
        assert (
            told("SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename='titanic_app'")
            == "t"
        )
        assert site.changed(site.succeed()) == 0

        # Another authority: a pod that trusts it does not get ready, and no other is touched.
        pods = {pod["metadata"]["uid"] for pod in site.pods("api")}
        wrong: dict[str, Any] = {"titanic_database_external": external | {"authority": other.certificate}}
        wrong["titanic_api_ready_seconds"] = 20
        refused = site.refuse(*with_(**wrong), "--skip-tags", "verify")
        assert "what served before serves on" in refused
        assert "certificate verify failed" in site.failure_report(refused)
        assert {pod["metadata"]["uid"] for pod in site.pods("api")} == pods
        assert rows(site) == 887

        # Other ways in, to the same pods. The authority has to be the right one again.
        only_the_api = ["--tags", "api", "--skip-tags", "verify"]
        networks = [*site.settings["titanic_target_client_networks"], f"{cluster.address}/32"]
        front = {"titanic_api_front": "node_port", "titanic_api_node_port": NODE_PORT, "titanic_api_port": NODE_PORT}
        asked = site.succeed(*with_(**front, titanic_target_client_networks=networks), "--tags", "secrets,api")
        assert f"887 people at http://{site.host}:{NODE_PORT}/people" in asked
        assert site.get("ingress") == []
        with knowing(cluster, "httproutes.gateway.networking.k8s.io", "clusterissuers.cert-manager.io"):
            gateway = {"titanic_api_front": "gateway", "titanic_api_gateway": {"name": "front", "namespace": "gates"}}
            # No controller is there to answer.
            site.succeed(*with_(**gateway), *only_the_api)
            (route,) = site.get("httproute")
            assert site.get("ingress") == []
            assert route["spec"]["hostnames"] == [site.host]
            assert route["spec"]["parentRefs"][0]["name"] == "front"
            refused = site.refuse(*with_(titanic_api_tls="acme", titanic_api_issuer="mine"))
            assert "titanic_api_issuer: the cluster has no ClusterIssuer mine (it has none)" in " ".join(
                refused.split()
            )
            issuer = {"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "mine"}}
            make(cluster, issuer | {"spec": {"selfSigned": {}}})
            site.succeed(*with_(titanic_api_tls="acme", titanic_api_issuer="mine"), *only_the_api)
            assert site.get("ingress")[0]["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] == "mine"
            assert site.get("httproute") == []
            (solvers,) = (thing["spec"] for thing in site.get("networkpolicy", "titanic-acme"))
            assert solvers["podSelector"] == {"matchLabels": {"acme.cert-manager.io/http01-solver": "true"}}
            assert [rule["ports"] for rule in solvers["ingress"]] == [[{"port": 8089, "protocol": "TCP"}]]

        # Another password without a moment in which neither is good: a second login role takes over from the first.
        # What belonged to the other way in goes.
        changed = f"planted-changed-{own}"
        told(
            f"CREATE ROLE titanic_app_b LOGIN PASSWORD '{changed}'; GRANT CONNECT ON DATABASE titanic TO titanic_app_b"
        )
        second = {"titanic_secrets_values": given | {"database_app_password": changed}}
        with BackgroundLoad(past_the_front(site, delete_afterwards=True)) as load:
            said = site.succeed(*with_(**second, titanic_database_user="titanic_app_b"), "--skip-tags", "verify")
        assert load.report.clean, f"{load.report.summary()}\n{load.report.failures[:10]}"
        assert {pod["metadata"]["uid"] for pod in site.pods("api")}.isdisjoint(pods)
        assert "titanic-acme" not in [thing["metadata"]["name"] for thing in site.get("networkpolicy")]
        assert changed not in said
        told("ALTER ROLE titanic_app NOLOGIN")
        site.wait_until_it_answers(60)  # who is in front had another way to it until now
        assert rows(site) == 887

        site.succeed("--tags", "teardown", "-e", CONFIRMED)
        assert theirs(site) == before
        assert {thing["metadata"]["name"] for kind in SHOP for thing in site.get(kind)} == {"kube-root-ca.crt", "shop"}
        cluster("delete", "namespace", site.namespace)


def test_secrets_out_of_a_store(cluster: Cluster) -> None:
    """Made and changed where the store is, told of when it fails, and in no Secret of ours."""
    own = secrets.token_hex(4)
    store = {f"titanic/database_{name}_password": f"planted-{name}-{own}" for name in ("app", "superuser")}
    store |= {"prod/owner": f"planted-owner-{own}", "prod/tokens": f"planted-token-{own}"}
    remote = {"database_owner_password": {"key": "prod/owner"}, "write_tokens": "prod/tokens"}
    settings = {
        "titanic_secrets_source": "external_secrets",
        "titanic_secrets_store": {"aws": {"service": "SecretsManager", "region": "eu-central-1"}},
        "titanic_secrets_remote": remote,
    }
    kinds = ("secretstores.external-secrets.io", "externalsecrets.external-secrets.io")
    with knowing(cluster, *kinds), small_site(cluster, **settings) as site:
        options = site.settings["titanic_cluster"] | {"namespace": site.namespace}
        with ExternalSecrets(options, store) as operator:
            said = site.succeed()
            assert rows(site) == 887
            assert site.get("secret", "titanic-secrets") == []
            assert site.ask("/people", "POST", {})[0] == 401
            assert site.changed(site.succeed()) == 0

            # Another password in the store: the database has it, and pods that know it.
            pods = {pod["metadata"]["uid"] for pod in site.pods("api")}
            store["titanic/database_app_password"] = f"planted-changed-{own}"
            with BackgroundLoad(past_the_front(site, post_share=0)) as load:
                said += site.succeed()
            assert load.report.clean, f"{load.report.summary()}\n{load.report.failures[:10]}"
            assert {pod["metadata"]["uid"] for pod in site.pods("api")}.isdisjoint(pods)
            assert own not in said

            # What the store does not have, and one that cannot be read.
            del store["prod/tokens"]
            refused = " ".join(site.refuse("--tags", "secrets").split())
            assert (
                "ExternalSecret titanic-api is not ready: SecretSyncedError: Secret prod/tokens does not exist"
                in refused
            )
            operator.refuses = "unable to create client: no credentials"
            refused = " ".join(site.refuse("--tags", "secrets").split())
            assert "SecretStore titanic is not ready: InvalidProviderConfig: unable to create client" in refused
            assert rows(site) == 887


def test_a_database_of_cloudnative_pg(cluster: Cluster) -> None:
    """The cluster takes the objects as its definition has them; what the operator makes of them is made here."""
    settings = {
        "titanic_database_kind": "cloudnative_pg",
        "titanic_database_instances": 3,
        "titanic_database_operator_namespace": "operators",
        "titanic_database_settings": {"work_mem": "8MB", "max_connections": 50},
    }
    with knowing(cluster, "clusters.postgresql.cnpg.io"), small_site(cluster, **settings) as site:
        assert isinstance(site, KubernetesSite)
        labels = {"cnpg.io/cluster": "titanic-database", "cnpg.io/instanceRole": "primary"}
        run = site.start()
        deadline = time.monotonic() + 180
        while not site.get("clusters.postgresql.cnpg.io"):
            if run.poll() is not None or time.monotonic() > deadline:
                run.kill()
                pytest.fail(run.communicate()[0])
            time.sleep(0.5)
        (wanted,) = site.get("clusters.postgresql.cnpg.io")
        spec = wanted["spec"]
        assert spec["instances"] == 3
        assert {"method": "any", "number": 1}.items() <= spec["postgresql"]["synchronous"].items()
        assert spec["postgresql"]["parameters"] == {"work_mem": "8MB", "max_connections": "50"}
        logins = [spec["bootstrap"]["initdb"]["secret"], spec["managed"]["roles"][0]["passwordSecret"]]
        for login, role in zip(logins, ("titanic_owner", "titanic_app"), strict=True):
            (secret,) = site.get("secret", login["name"])
            assert secret["type"] == "kubernetes.io/basic-auth"
            assert secret["data"].keys() == {"username", "password"}, role
        made = new_certificate("titanic-database-rw")
        encrypted = {"tls.crt": made.certificate, "tls.key": made.key}
        # What the operator would do: a server that is written to under its name, and its word that all is well.
        make(
            cluster,
            service("titanic-database-rw", site.namespace, labels, 5432),
            *server(site.namespace, labels, "postgres", 5432, **encrypted),
        )
        ready(cluster, site.namespace)
        status = {"phase": "Cluster in healthy state", "readyInstances": 3}
        words = ["patch", "clusters.postgresql.cnpg.io", "titanic-database", "--subresource=status", "--type=merge"]
        cluster("--namespace", site.namespace, *words, "--patch", json.dumps({"status": status}))
        output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output
        assert rows(site) == 887
        policies = {policy["metadata"]["name"]: policy["spec"] for policy in site.get("networkpolicy")}
        assert "operators" in json.dumps(policies["titanic-database-cluster"]["ingress"])
        assert site.changed(site.succeed()) == 0
