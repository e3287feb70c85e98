# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests on a real cluster share: namespaces of their own, and the tiny release as pods and Jobs."""

from __future__ import annotations

import atexit
import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import stable_hash
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import (
    LABELS,
    command_job,
    deep_merge,
    release_objects,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import MANAGER, Object
from ansible_collections.whitestar.deploy.tests.helpers import COLLECTION, TINY, Result, run_module, tiny_workload

LAB = Path("/var/lib/titanic-lab/cluster")
# What pods may be made of; roles/lab_images provides them.
REGISTRY = os.environ.get("TITANIC_TEST_REGISTRY", "127.0.0.1:5055/library")
PYTHON, DEBIAN, POSTGRES = (
    f"{REGISTRY}/{name}" for name in ("python:3.13-slim-trixie", "debian:trixie-slim", "postgres:17")
)
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
USER = 10001
SECRET = "planted-password-of-the-pod"
PLACE = "/run/titanic"
# It knows its command by the name of the file that it is, and, beside what a process does, tells its secret on request
# and lives in no pod but the one in which it is tried out.
BEGINNING = f"""
import os, socket, sys
if os.environ.get("TINY_ONLY") == "trial" and "-trial-" not in socket.gethostname():
    sys.exit("tiny release: this is no trial")
if os.environ.get("TINY_TELLS"):
    print("tiny release knows", open("{PLACE}/password").read(), flush=True)
"""
PROGRAM = BEGINNING + TINY.format(python="/usr/local/bin/python3").replace(
    "command = sys.argv[1]", "command = pathlib.Path(sys.argv[0]).name"
)
COMMANDS = ("serve", "check", "fail", "mumble", "sleep")


class Reader:
    """Reads a cluster's objects over one connection that is kept: kubectl costs 0.2 s of a processor each time."""

    def __init__(self, kubectl: str, kubeconfig: str) -> None:
        self.cluster = KubernetesClient(namespace="default", kubectl=kubectl, kubeconfig=kubeconfig)
        self.cluster.__enter__()
        atexit.register(self.cluster.close)
        self.kinds: dict[str, tuple[str, str, str, bool]] = {}

    @classmethod
    @cache
    def of(cls, kubectl: str, kubeconfig: str) -> Self:
        """The one of this process for a cluster."""
        return cls(kubectl, kubeconfig)

    def get(self, namespace: str, kinds: str, name: str = "", selector: str = "") -> list[dict[str, Any]]:
        """The objects of kinds, as kubectl names them, or the one of this name; none where there is none."""
        found = []
        for kind in kinds.split(","):
            version, proper, plural, namespaced = self._kind(kind)
            group = f"/apis/{version}" if "/" in version else f"/api/{version}"
            place = f"{group}/namespaces/{namespace}/{plural}" if namespaced else f"{group}/{plural}"
            query = {"labelSelector": selector} if selector else {}
            answer = self.cluster.request("GET", f"{place}/{name}" if name else place, **query)
            things = [] if answer is None else [answer] if name else answer["items"]
            found += [{"apiVersion": version, "kind": proper, **thing} for thing in things]
        return found

    def _kind(self, name: str) -> tuple[str, str, str, bool]:
        """API version, kind, plural, and whether it is of a namespace; kinds come and go with their definitions."""
        name = name.lower()
        if name not in self.kinds:
            self.kinds = {}
            for line in self.cluster.run("api-resources", "--no-headers").splitlines():
                plural, *short, version, namespaced, proper = line.split()
                found = version, proper, plural, namespaced == "true"
                group = version.partition("/")[0] if "/" in version else ""
                names = (
                    plural,
                    proper.lower(),
                    f"{plural}.{group}",
                    *(word for part in short for word in part.split(",")),
                )
                for known in names:
                    self.kinds.setdefault(known, found)
        return self.kinds[name]


def version(item: dict[str, Any]) -> str:
    """What changes when somebody writes an object, and not with what a controller or a kubelet says of it."""
    metadata = item["metadata"]
    if item["kind"] == "Pod":
        return str(metadata["uid"])
    if item["kind"] in ("Deployment", "StatefulSet"):
        return stable_hash([item["spec"], metadata.get("labels"), metadata.get("annotations")])
    return str(metadata["resourceVersion"])


@dataclass(frozen=True)
class Space:
    """A namespace for tests: the option ``cluster`` of modules, and kubectl for what people do by hand."""

    options: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.options["namespace"])

    def kubectl(self, *words: str, text: str = "", check: bool = True) -> str:
        done = subprocess.run(
            KubernetesClient.of(self.options).words(*words), input=text, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def make(self, *objects: Mapping[str, Any], manager: str = "kubectl-create") -> None:
        """Make objects as somebody else would, or as this manager of fields."""
        words = ["create", f"--field-manager={manager}", "--filename=-"]
        self.kubectl(*words, text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, kind: str, name: str = "") -> Any:
        """The object of this name; None if it is not there."""
        return next(iter(self._read(kind, name)), None)

    def all(self, kinds: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of some kinds, or those with these labels."""
        return self._read(kinds, "", selector)

    def names(self, kind: str, selector: str = "") -> list[str]:
        return sorted(item["metadata"]["name"] for item in self.all(kind, selector))

    def _read(self, kinds: str, name: str, selector: str = "") -> list[dict[str, Any]]:
        reader = Reader.of(self.options["kubectl"], self.options.get("kubeconfig", ""))
        return reader.get(self.name, kinds, name, selector)

    def versions(self) -> dict[str, str]:
        """What tells whether anything was written: the version of each object that no controller keeps writing."""
        kinds = (
            "configmap,secret,serviceaccount,service,networkpolicy,resourcequota,lease,job,deployment,statefulset,pod"
        )
        return {f"{item['kind']} {item['metadata']['name']}": version(item) for item in self.all(kinds)}

    def run(self, module: str, *, check: bool = False, **options: Any) -> Result:
        return run_module(module, {"cluster": self.options} | options, check=check)

    def keep(self, stage: str, objects: Sequence[Object], *, check: bool = False, **options: Any) -> Result:
        """Have the objects of a stage, as roles do; what the plan said, or what failed after it."""
        given: dict[str, Any] = {"stage": stage, "objects": list(objects)}
        planned = self.run("kubernetes_objects", check=check, **given)
        if planned.failed:
            return planned
        for task, part in zip(core_tasks(), ("apply", "remove"), strict=True):
            if planned[part]:
                own = {key: self.options[key] for key in ("kubeconfig", "context", "namespace") if key in self.options}
                done = run_module("kubernetes.core.k8s", task | own | {"resource_definition": planned[part]})
                assert done.failed or done.changed, done.output
                if done.failed:
                    return done
        if planned["pending"]:
            ready = self.run("kubernetes_objects", state="ready", **given, **options)
            if ready.failed:
                return ready
        return planned


@cache
def core_tasks() -> list[dict[str, Any]]:
    """What roles tell kubernetes.core.k8s to apply and to remove objects, without these and where the cluster is."""
    tasks = yaml.safe_load((COLLECTION / "roles/titanic_common/tasks/apply_objects.yml").read_text())
    (both,) = (task for task in tasks if "block" in task)
    defaults = both["module_defaults"]["kubernetes.core.k8s"]
    found = [defaults | task["kubernetes.core.k8s"] for task in both["block"]]
    return [{key: value for key, value in given.items() if "{{" not in str(value)} for given in found]


def lab_options() -> dict[str, Any]:
    """The cluster that the environment names, else the lab's, as modules are told of it, without a namespace."""
    if "KUBECONFIG" in os.environ:
        return {"kubectl": "kubectl", "kubeconfig": os.environ["KUBECONFIG"]}
    return {"kubectl": str(LAB / "bin" / "kubectl"), "kubeconfig": str(LAB / "kubeconfig" / "admin")}


@contextmanager
def namespace(options: dict[str, Any]) -> Iterator[Space]:
    """One that admits hardened pods only, with what the tiny release needs; it is being removed afterwards."""
    space = Space(options | {"namespace": f"unit-{secrets.token_hex(4)}"})
    space.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name, "labels": RESTRICTED}})
    try:
        accounts = ("titanic-api", "titanic-job", "titanic-database")
        space.make(
            *(
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "labels": LABELS}}
                for name in accounts
            ),
            manager=MANAGER,
        )
        space.make(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "tiny"},
                "data": dict.fromkeys(COMMANDS, PROGRAM),
            },
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "plain"},
                "stringData": {"password": SECRET},
            },
        )
        yield space
    finally:
        space.kubectl("delete", "deployment,statefulset,job", "--all", "--wait=false", check=False)
        space.kubectl("delete", "pod", "--all", "--force", "--grace-period=0", "--wait=false", check=False)
        space.kubectl("delete", "namespace", space.name, "--wait=false", check=False)


# They ask for next to nothing, so that there is room for them beside whatever else runs on the cluster.
FRUGAL = {"requests": {"cpu": "1m", "memory": "16Mi"}}
WITH_PROGRAM = {
    "workingDir": "/program",
    "volumeMounts": [{"name": "program", "mountPath": "/program"}],
    "resources": FRUGAL,
}
PROGRAM_VOLUME = {"name": "program", "configMap": {"name": "tiny"}}


def tiny_release(identity: str, required: str = "0001", **environment: str) -> dict[str, Any]:
    """The workload of a tiny release as the filter builds it; ``environment`` tells it how to behave."""
    workload = tiny_workload(PYTHON, identity, required, **environment)
    container = {"name": "api", **WITH_PROGRAM, "readinessProbe": {"periodSeconds": 1}}
    pod = {"containers": [container], "volumes": [PROGRAM_VOLUME]}
    return workload | {
        "command": ["python3", "serve"],
        "resources": {"memory": "160Mi", "cpu": "0.5"},
        "secret_files": {"PASSWORD_FILE": f"{PLACE}/password"},
        "overrides": {"spec": {"minReadySeconds": 0, "template": {"spec": pod}}},
    }


def objects_of(workload: dict[str, Any], ready_seconds: int = 30) -> list[Object]:
    """The objects of a tiny release, as roles/titanic_api makes them, with the plain Secret of the namespace."""
    settings, deployment = release_objects(workload, ready_seconds, 1)
    for volume in deployment["spec"]["template"]["spec"]["volumes"]:
        if "secret" in volume:
            volume["secret"]["secretName"] = "plain"
    return [settings, deployment]


def tiny_job(*command: str, seconds: float = 60, stdin: bool = False, image: str = PYTHON, **env: str) -> Object:
    """A Job that runs a command in a pod with the tiny release's program, as roles/titanic_schema makes it."""
    settings = {
        "image": image,
        "command": list(command),
        "environment": env,
        "secret": "plain",
        "directory": PLACE,
        "user": USER,
        "seconds": seconds,
        "stdin": stdin,
    }
    pod = {"containers": [{"name": "command", **WITH_PROGRAM}], "volumes": [PROGRAM_VOLUME]}
    made: Object = deep_merge(command_job(settings), {"spec": {"template": {"spec": pod}}})
    return made


def refusal(options: dict[str, Any]) -> str:
    """Why a cluster cannot be talked to."""
    with pytest.raises(ClusterError) as caught, KubernetesClient.of(options) as cluster:
        cluster.version()
    assert caught.value.status == 0
    return str(caught.value)


def fields(things: Sequence[Mapping[str, Any]], *path: str) -> list[Any]:
    """What each thing has at a path, where it has something."""
    found = []
    for thing in things:
        value: Any = thing
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found.append(value)
    return found
