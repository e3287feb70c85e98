# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload as objects of Kubernetes: a Deployment with its settings, and Jobs that run commands of a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import LABELS as MANAGED

NAME = "titanic"
API = "titanic-api"
RELEASE = "whitestar.deploy/release"
LABELS = {"app.kubernetes.io/name": NAME, **MANAGED}
COMPONENT = "app.kubernetes.io/component"
REQUESTS = {"memory": "128Mi", "cpu": "100m"}
# What a Job needs that reads a data set; it runs once.
JOB_RESOURCES = {"requests": REQUESTS, "limits": {"memory": "256Mi", "cpu": "1"}}
SCRATCH = "/tmp"  # noqa: S108 - in a pod, a volume of its own
# A pod that is told to end serves on for so long. kube-proxy hears of it within a second, an ingress controller such as
# Traefik within two (its providersThrottleDuration).
LEAVE_SECONDS = 5
# Beside the time for what a pod leaves and drains.
MARGIN_SECONDS = 5
READ_MODE = 0o440
HARDENED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def labels(component: str) -> dict[str, str]:
    """What tells a part of ours from others."""
    return {"app.kubernetes.io/name": NAME, COMPONENT: component}


def pod(container: Mapping[str, Any], user: int, account: str, secret: str, directory: str) -> dict[str, Any]:
    """A pod that Pod Security ``restricted`` admits, with one container that reads its ``secret`` in ``directory``."""
    mounts = [{"name": "secrets", "mountPath": directory, "readOnly": True}, {"name": "scratch", "mountPath": SCRATCH}]
    return {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{**container, "securityContext": HARDENED, "volumeMounts": mounts}],
        "volumes": [
            {"name": "secrets", "secret": {"secretName": secret, "defaultMode": READ_MODE}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "64Mi"}},
        ],
    }


def release_objects(workload: Mapping[str, Any], ready_seconds: int, drain_seconds: int) -> list[dict[str, Any]]:
    """The objects of a release: its settings as a ConfigMap of its own, and the Deployment, without a number of pods.

    ``ready_seconds`` is how long a pod may take to start, ``drain_seconds`` how long it may take to finish what it has.
    """
    release, port = str(workload["release"]), int(workload["port"])
    own = {
        "TITANIC_BIND": f"0.0.0.0:{port}",
        "TITANIC_METRICS_DIRECTORY": f"{SCRATCH}/metrics",
        # Whoever is in front keeps connections for longer than we do, and would send a POST on one that we close.
        "TITANIC_KEEPALIVE_SECONDS": "0",
    }
    name = f"{API}-{release}"
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {**LABELS, COMPONENT: "api", RELEASE: release}},
        "immutable": True,
        "data": {**workload["environment"], **own},
    }
    directories = {str(PurePosixPath(path).parent) for path in workload["secret_files"].values()}
    container = {
        "name": "api",
        "image": workload["image"],
        "command": list(workload["command"]),
        "envFrom": [{"configMapRef": {"name": name}}],
        "ports": [{"name": "http", "containerPort": port}],
        "resources": {"requests": REQUESTS, "limits": _limits(workload)},
        "startupProbe": _probe(workload["probes"]["alive"], every=1, failures=ready_seconds),
        "livenessProbe": _probe(workload["probes"]["alive"], every=10, failures=3),
        "readinessProbe": _probe(workload["probes"]["ready"], every=2, failures=2),
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
    }
    spec = pod(container, int(workload["user"]), API, API, min(directories, default="/run/titanic"))
    spec["terminationGracePeriodSeconds"] = int(drain_seconds) + LEAVE_SECONDS + MARGIN_SECONDS
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels("api")},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
    scrape = {"prometheus.io/scrape": "true", "prometheus.io/port": str(port)}
    scrape |= {"prometheus.io/path": workload["probes"]["metrics"]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": API, "labels": {**LABELS, COMPONENT: "api"}},
        "spec": {
            "selector": {"matchLabels": labels("api")},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "minReadySeconds": 2,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": int(ready_seconds) * 10,
            "template": {
                "metadata": {
                    "labels": {**LABELS, **labels("api"), RELEASE: release},
                    "annotations": {**scrape, RELEASE: release},
                },
                "spec": spec,
            },
        },
    }
    return [settings, deep_merge(deployment, workload["overrides"])]


def command_job(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A Job that runs a command of a release once, without a second try.

    ``settings`` has ``image``, ``command``, ``environment``, ``user``, ``secret`` and ``directory``, where the
    container reads it. ``seconds`` is how long it may take, and ``stdin`` whether it is given something to read.
    """
    container = {
        "name": "command",
        "image": settings["image"],
        "command": list(settings["command"]),
        "env": [{"name": name, "value": str(value)} for name, value in sorted(settings["environment"].items())],
        "resources": JOB_RESOURCES,
    }
    if settings.get("stdin"):
        container |= {"stdin": True, "stdinOnce": True}
    spec = pod(container, int(settings["user"]), "titanic-job", settings["secret"], settings["directory"])
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job", "labels": {**LABELS, COMPONENT: "job"}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(settings["seconds"]),
            "template": {
                "metadata": {"labels": {**LABELS, **labels("job")}},
                "spec": {**spec, "restartPolicy": "Never"},
            },
        },
    }


def deep_merge(base: Any, over: Any) -> Any:
    """``base`` with ``over`` laid on it: mappings recursively, lists of named things by their names."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        merged = {key: deep_merge(value, over[key]) if key in over else value for key, value in base.items()}
        return merged | {key: value for key, value in over.items() if key not in base}
    if _named(base) and _named(over):
        wanted = {item["name"]: item for item in over}
        both = [deep_merge(item, wanted.pop(item["name"], {})) for item in base]
        return [*both, *wanted.values()]
    return over


def _named(value: Any) -> bool:
    """Whether it is a list of things with names, of which Kubernetes allows each name once."""
    return (
        isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) and "name" in item for item in value)
    )


def _limits(workload: Mapping[str, Any]) -> dict[str, str]:
    """The workload's resources, as Kubernetes writes them: ``0.5`` processors are ``500m``."""
    resources = workload["resources"]
    return {"memory": str(resources["memory"]), "cpu": f"{round(float(resources['cpu']) * 1000)}m"}


def _probe(path: str, every: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": every,
        "timeoutSeconds": 3,
        "failureThreshold": max(1, int(failures)),
    }


def merge_overrides(objects: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any]) -> list[Any]:
    """Objects with what ``overrides`` has for their kinds laid over them."""
    return [deep_merge(thing, overrides.get(thing["kind"], {})) for thing in objects]
