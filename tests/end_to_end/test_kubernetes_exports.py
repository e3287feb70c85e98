"""What is rendered for those who do not run Ansible against a cluster comes to the same objects there as a run does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import Cluster
from tests.deployment import workplace
from tests.end_to_end.switch.site import ROOT, KubernetesSite, copy_service
from tests.secret_scan import MARK, PLANTED, RUN, VARIABLES

CACHE = Path("/var/cache/titanic-lab")
PEOPLE = 887
WAIT_SECONDS = 240
PLAYBOOK = "playbooks/render-manifests.yml"
# What is compared; what the cluster makes of these follows from them.
KINDS = (
    "configmap",
    "deployment",
    "horizontalpodautoscaler",
    "ingress",
    "job",
    "limitrange",
    "networkpolicy",
    "poddisruptionbudget",
    "resourcequota",
    "service",
    "serviceaccount",
    "statefulset",
)
# What the cluster keeps in an object, or a tool notes on it.
NOTED = re.compile(
    r"(kubectl|deployment|pv|volume|autoscaling)[\w.-]*kubernetes\.io/|meta\.helm\.sh/|helm\.sh/resource-policy"
    r"|argocd\.argoproj\.io/|kustomize\.toolkit\.fluxcd\.io/"
)
KEPT_BY_THE_CLUSTER = (
    "creationTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "namespace",
    "resourceVersion",
    "uid",
)
# Of a run, what others have no use for: its ledger, what its stages made, its own Jobs.
RUN_ONLY = ("titanic-ledger", "titanic-stages", "titanic-migrate-", "titanic-seed-")
BY_THE_CLUSTER = ("kube-root-ca.crt", "default")
SECRETS = {
    "database_app_password": PLANTED["application's password"],
    "database_owner_password": PLANTED["owner's password"],
    "database_superuser_password": rf"{RUN}superuser-1\:2",
    "write_tokens": PLANTED["write token"],
}
# What kube-score would have otherwise, by kind. Why it is as it is: docs/user/manifests.md.
ACCEPTED = {
    ("Deployment", "container-ephemeral-storage-request-and-limit"),
    ("Deployment", "container-image-pull-policy"),
    ("Deployment", "deployment-has-host-podantiaffinity"),
    ("Job", "container-ephemeral-storage-request-and-limit"),
    ("Job", "container-image-pull-policy"),
    ("StatefulSet", "container-ephemeral-storage-request-and-limit"),
    ("StatefulSet", "container-image-pull-policy"),
    ("StatefulSet", "container-security-context-user-group-id"),
}
FAULTLESS = 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Exports:
    """A rendered tree and chart, and namespaces: for a run, for Helm, and for each environment of the tree."""

    site: KubernetesSite
    directory: Path
    variables: Path
    helm: str

    @property
    def cluster(self) -> Cluster:
        return self.site.cluster

    @property
    def chart(self) -> str:
        return str(self.directory / "chart")

    @property
    def namespaces(self) -> dict[str, str]:
        """Each namespace by what is deployed there, or would be."""
        base = f"{self.site.namespace}-tree"
        overlays = {"dev": f"{base}-dev", "kustomize": f"{base}-staging", "prod": base}
        return {"ansible": self.site.namespace, "helm": f"{self.site.namespace}-helm", **overlays}

    def hostname(self, where: str) -> str:
        """The name that the API is asked by."""
        base = f"{self.site.namespace}-tree.test"
        names = {"ansible": self.site.host, "helm": f"helm.{self.site.host}", "kustomize": f"staging.{base}"}
        return names[where]

    def render(self, *arguments: str) -> str:
        """Render; what was printed."""
        return self.site.succeed("-e", f"@{self.variables}", *arguments, playbook=PLAYBOOK)

    def run_helm(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What became of ``helm words…`` in Helm's namespace, whatever its exit status."""
        own = ["--kubeconfig", self.cluster.kubeconfig, "--namespace", self.namespaces["helm"]]
        return subprocess.run([self.helm, *words, *own], capture_output=True, text=True, timeout=WAIT_SECONDS)

    def call_helm(self, *words: str) -> str:
        """Standard output of ``helm words…``, which must succeed."""
        done = self.run_helm(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def people(self, where: str) -> int:
        """How many people the API has there; -1 if it does not say."""
        status, found = self.site.ask("/people", headers={"Host": self.hostname(where)})
        return len(found) if status == 200 else -1

    def wait_for_people(self, where: str) -> None:
        """Wait until everybody is there."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (found := self.people(where)) != PEOPLE:
            namespace = self.namespaces[where]
            events = "" if time.monotonic() < deadline else self.cluster("-n", namespace, "get", "pods,events")
            assert time.monotonic() < deadline, f"{where}: {found} people\n{events}"
            time.sleep(0.5)

    def wait_for_release(self, where: str, other_than: str) -> str:
        """The release that answers once the other one does not; old pods do so while they leave."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            status, found = self.site.ask("/version", headers={"Host": self.hostname(where)})
            if status == 200 and found["release"] != other_than:
                return str(found["release"])
            assert time.monotonic() < deadline, found
            time.sleep(0.5)

    def objects(self, where: str) -> dict[str, Any]:
        """What is asked for there, by kind and name, in words that are the same everywhere.

        Of the tree that is what the API server would make of it, which is one of the two ways to prove an export.
        """
        if where == "kustomize":
            tree = ["-k", str(self.directory / "kustomize/overlays/staging")]
            listed = self.cluster("apply", "--server-side", "--dry-run=server", "--output", "json", *tree)
        else:
            listed = self.cluster("-n", self.namespaces[where], "get", ",".join(KINDS), "--output", "json")
        text = listed.replace(self.hostname(where), "HOSTNAME")
        # A run names a Secret by what is in it.
        text = re.sub(r'("secretName": "titanic-[a-z]+)-[0-9a-f]{10}"', r'\1"', text)
        things = [asked_for(thing) for thing in json.loads(text)["items"] if thing["kind"].lower() in KINDS]
        return {
            f"{thing['kind']} {thing['metadata']['name']}": thing
            for thing in things
            if not thing["metadata"]["name"].startswith((*RUN_ONLY, *BY_THE_CLUSTER))
        }

    def create_namespace(self, where: str) -> None:
        """Make a namespace, if it is not there yet: without it nothing in it can be tried."""
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespaces[where]}}
        self.cluster("apply", "--filename", "-", text=json.dumps(made))

    def clear(self) -> None:
        """Remove every namespace at once, and the images."""
        for namespace in self.namespaces.values():
            self.cluster("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
        self.site.clear()
        self.cluster("wait", "--for=delete", "--timeout=100s", *(f"namespace/{n}" for n in self.namespaces.values()))


def asked_for(thing: dict[str, Any]) -> dict[str, Any]:
    """An object without what the cluster and the tools note in it."""
    metadata = {key: value for key, value in thing["metadata"].items() if key not in KEPT_BY_THE_CLUSTER}
    annotations = {key: value for key, value in metadata.pop("annotations", {}).items() if not NOTED.match(key)}
    # Helm has its own word for who manages it.
    kept = {key: value for key, value in metadata.get("labels", {}).items() if key != "app.kubernetes.io/managed-by"}
    metadata |= {"annotations": annotations, "labels": kept}
    spec = dict(thing.get("spec", {}))
    for key in ("clusterIP", "clusterIPs", "volumeName"):
        if spec.get(key) != "None":
            spec.pop(key, None)
    if thing["kind"] == "Job":
        # By which it knows its pods.
        spec.pop("selector")
        own = spec["template"]["metadata"]["labels"]
        labels = {key: value for key, value in own.items() if not key.endswith(("controller-uid", "job-name"))}
        spec["template"] = spec["template"] | {"metadata": {"labels": labels}}
    return {key: value for key, value in thing.items() if key != "status"} | {"metadata": metadata, "spec": spec}


def found(tool: str) -> str:
    """A command: the lab's, or one on PATH. Skips the test where there is none."""
    built = [str(path) for path in sorted((CACHE / tool).glob(f"*/{tool}"))]
    command = built[-1] if built else shutil.which(tool)
    if command is None:
        pytest.skip(f"there is no command {tool} (make cluster builds it)")
    return command


@pytest.fixture(scope="module")
def exports() -> Iterator[Exports]:
    """Rendered, and nothing deployed yet."""
    try:
        cluster = Cluster.found()
    except LookupError as reason:
        pytest.skip(str(reason))
    helm = found("helm")
    with workplace() as place:
        state = Path("/var/lib" if os.geteuid() == 0 else place) / f"exports-{uuid.uuid4().hex[:6]}"
        site = KubernetesSite(state, copy_service(place / "service"), cluster)
        site.settings |= {
            "titanic_api_replicas": 1,
            "titanic_api_max_replicas": 2,
            "titanic_manifests_directory": str(place / "manifests"),
            "titanic_manifests_namespace": f"{state.name}-tree",
            "titanic_manifests_hostname": f"{state.name}-tree.test",
        }
        variables = place / "variables.json"
        variables.touch(0o600)
        variables.write_text(json.dumps(VARIABLES))
        new = Exports(site, place / "manifests", variables, helm)
        try:
            assert new.site.changed(new.render()) == 2  # the image, and the files
            yield new
        finally:
            new.clear()


@dataclass(frozen=True)
class Live:
    """What came to be by one way."""

    objects: dict[str, Any]
    people: int
    version: Any


@pytest.fixture(scope="module")
def live(exports: Exports) -> dict[str, Live]:
    """The same by a run and by Helm, one after the other, so that a small node has room; Helm's stays."""
    ways = {"ansible": run_site, "helm": install_chart}
    found = {}
    for where, way in ways.items():
        way(exports)
        exports.wait_for_people(where)
        version = exports.site.ask("/version", headers={"Host": exports.hostname(where)})[1]
        found[where] = Live(exports.objects(where), exports.people(where), version)
        if where != "helm":
            exports.cluster("delete", "namespace", exports.namespaces[where], "--wait=false")
    return found


def run_site(exports: Exports) -> None:
    exports.site.succeed("-e", f"@{exports.variables}", "--skip-tags", "verify")


def secrets_for(exports: Exports, where: str) -> None:
    """Make the Secrets in a namespace, as the README says."""
    tree = exports.directory / "kustomize/secrets"
    for name, secret in SECRETS.items():
        (tree / name).touch(0o600)
        (tree / name).write_text(secret)
    words = ["-n", exports.namespaces[where], "apply", "--server-side", "-k", str(tree)]
    exports.cluster(*words)
    for name in SECRETS:
        (tree / name).unlink()


def install_chart(exports: Exports) -> None:
    exports.cluster("create", "namespace", exports.namespaces["helm"])
    secrets_for(exports, "helm")
    exports.call_helm("install", "titanic", exports.chart, "--set", f"hostname={exports.hostname('helm')}")


def files(exports: Exports) -> dict[str, str]:
    """Everything that was rendered, by path."""
    found = (path for path in exports.directory.rglob("*") if path.is_file())
    return {str(path.relative_to(exports.directory)): path.read_text() for path in found}


def test_a_second_rendering_changes_nothing(exports: Exports) -> None:
    before = files(exports)
    assert exports.site.changed(exports.render()) == 0
    assert files(exports) == before


def test_check_mode_writes_nothing(exports: Exports) -> None:
    before = files(exports)
    printed = exports.render("--check", "--diff", "-e", "titanic_api_workers=3")
    assert exports.site.changed(printed) == 1
    assert "+  TITANIC_WORKERS: '3'" in printed
    assert files(exports) == before


def test_an_overlay_that_cannot_be_is_refused_by_name(exports: Exports) -> None:
    before = files(exports)
    wanted = json.dumps({"titanic_manifests_overlays": {"dev": {"replica": 1}}})
    image = "titanic_manifests_image=registry.example.org/titanic:1"
    printed = exports.site.refuse("-e", f"@{exports.variables}", "-e", image, "-e", wanted, playbook=PLAYBOOK)
    assert "titanic_manifests_overlays.dev: there is no option replica" in " ".join(printed.split())
    assert files(exports) == before


@pytest.mark.parametrize(("name", "where"), [("dev", "dev"), ("staging", "kustomize"), ("prod", "prod")])
def test_every_overlay_is_one_that_a_cluster_takes(exports: Exports, name: str, where: str) -> None:
    path = str(exports.directory / "kustomize/overlays" / name)
    built = list(yaml.safe_load_all(exports.cluster("kustomize", path)))
    (namespace,) = (thing["metadata"]["name"] for thing in built if thing["kind"] == "Namespace")
    assert {thing["metadata"].get("namespace", namespace) for thing in built} == {namespace}
    assert namespace == exports.namespaces[where]
    exports.create_namespace(where)
    exports.cluster("apply", "--server-side", "--dry-run=server", "-k", path)


def test_the_chart_makes_the_objects_of_the_base(exports: Exports) -> None:
    base = [path for path in (exports.directory / "kustomize/base").iterdir() if path.name != "kustomization.yaml"]
    wanted = [thing for path in base for thing in yaml.safe_load_all(path.read_text())]
    made = [thing for thing in yaml.safe_load_all(exports.call_helm("template", "titanic", exports.chart)) if thing]
    assert by_name(made) == by_name([thing for thing in wanted if thing["kind"] != "Namespace"])
    assert "0 chart(s) failed" in exports.call_helm("lint", exports.chart)


def test_what_kube_score_has_to_say_is_what_the_documents_answer(exports: Exports) -> None:
    objects = exports.cluster("kustomize", str(exports.directory / "kustomize/overlays/prod"))
    command = [found("kube-score"), "score", "--output-format", "json", "-"]
    # Its exit status says that there is something.
    scored = subprocess.run(command, input=objects, capture_output=True, text=True)
    told = {
        (thing["type_meta"]["kind"], score["check"]["id"])
        for thing in json.loads(scored.stdout)
        for score in thing["checks"]
        if not score["skipped"] and score["grade"] < FAULTLESS
    }
    assert told == ACCEPTED
    page = (ROOT / "docs/user/manifests.md").read_text()
    assert [check for _, check in sorted(ACCEPTED) if f"`{check}`" not in page] == []


def by_name(things: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"{thing['kind']} {thing['metadata']['name']}": thing for thing in things}


def test_environments_differ_as_they_should(exports: Exports) -> None:
    found = {}
    for name in ("dev", "staging", "prod"):
        built = yaml.safe_load_all(exports.cluster("kustomize", str(exports.directory / "kustomize/overlays" / name)))
        things = {thing["kind"]: thing["spec"] for thing in built if thing["kind"] in OVERLAID}
        scaler = things.get("HorizontalPodAutoscaler", {})
        found[name] = [
            things["Deployment"].get("replicas"),
            scaler.get("minReplicas"),
            scaler.get("maxReplicas"),
            things["StatefulSet"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"],
            "tls" in things["Ingress"],
        ]
    assert found == {
        "dev": [1, None, None, "1Gi", False],
        "staging": [None, 1, 2, "1Gi", False],
        "prod": [None, 3, 10, "10Gi", True],
    }


OVERLAID = ("Deployment", "HorizontalPodAutoscaler", "Ingress", "StatefulSet")


def test_everybody_is_there_by_every_way(live: dict[str, Live]) -> None:
    assert {where: found.people for where, found in live.items()} == dict.fromkeys(live, PEOPLE)


def test_one_release_serves_by_every_way(live: dict[str, Live]) -> None:
    assert live["ansible"].version["release"]
    assert live["ansible"].version == live["helm"].version


def test_exported_objects_are_those_of_a_run(exports: Exports, live: dict[str, Live]) -> None:
    exports.create_namespace("kustomize")
    by_run, by_kubectl, by_helm = live["ansible"].objects, exports.objects("kustomize"), live["helm"].objects
    assert by_kubectl == by_helm
    (job,) = (name for name in by_kubectl if name.startswith("Job "))
    assert re.fullmatch(r"Job titanic-prepare-[0-9a-f]{10}", job)
    assert {name: thing for name, thing in by_kubectl.items() if name != job} == by_run
    assert {name.partition(" ")[0].lower() for name in by_run} == set(KINDS) - {"job"}


def test_a_changed_value_is_another_release(exports: Exports, live: dict[str, Live]) -> None:
    before = live["helm"].version["release"]
    words = [exports.chart, "--reuse-values", "--set-string", "environment.TITANIC_WORKERS=1"]
    exports.call_helm("upgrade", "titanic", *words, "--set", "replicas.max=1", "--wait", "--timeout", "150s")
    namespace = exports.namespaces["helm"]
    answer = exports.wait_for_release("helm", other_than=before)
    assert re.fullmatch("[0-9a-f]{12}", answer)
    names = {thing["metadata"]["name"] for thing in exports.cluster.get(namespace, "configmap")}
    assert {f"titanic-api-{before}", f"titanic-api-{answer}"} <= names
    assert exports.cluster.get(namespace, "horizontalpodautoscaler") == []
    assert exports.people("helm") == PEOPLE
    exports.call_helm("rollback", "titanic", "1", "--wait", "--timeout", "150s")
    assert exports.wait_for_release("helm", other_than=answer) == before


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("replica=2", "'replica'"),
        ("replicas.min=two", "/replicas/min"),
        ("replicas.min=0", "/replicas/min"),
        ("storage.size=much", "/storage/size"),
        ("environment.TITANIC_DATABASE_HOST=elsewhere", "TITANIC_DATABASE_HOST"),
        ("secrets.api=", "/secrets/api"),
    ],
)
def test_a_wrong_value_is_refused_by_name(exports: Exports, value: str, named: str) -> None:
    refused = exports.run_helm("template", "titanic", exports.chart, "--set", value)
    assert refused.returncode != 0
    assert "values don't meet the specifications of the schema" in refused.stderr
    assert named in refused.stderr


def test_no_secret_is_in_what_is_rendered(exports: Exports, live: dict[str, Live]) -> None:
    texts = files(exports)
    assert "database_app_password" in texts["kustomize/secrets/kustomization.yaml"]
    assert [path for path, text in texts.items() if MARK.decode() in text] == []
    told = "".join(exports.call_helm("get", what, "titanic") for what in ("values", "manifest", "notes"))
    records = exports.cluster("-n", exports.namespaces["helm"], "get", "secret", "-l", "owner=helm", "--output", "json")
    assert "database_app_password" in told
    for text in (told, records):
        assert MARK.decode() not in text
