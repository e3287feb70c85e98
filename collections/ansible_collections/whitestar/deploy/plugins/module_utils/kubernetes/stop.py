# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment on a cluster at rest: no pod of the API and none of the database; everything else stays as it is.

An autoscaler lets a Deployment with no replicas alone, and a PodDisruptionBudget keeps nobody from scaling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import PREFIX, applied, planned
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import API
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import (
    Object,
    object_label,
    with_managed_labels,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.pods import wait_until_gone
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.readiness import RUNNING, settle
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rollout import MANY, Rollout
from ansible_collections.whitestar.deploy.plugins.module_utils.release.stopped import Stopped

STOPPED = f"{PREFIX}stopped"
DATABASE = "database"
# CloudNativePG ends all servers of a Cluster and keeps their volumes (declarative hibernation in its documentation).
HIBERNATES = {"cnpg.io/hibernation": "on"}
# Beside what pods are given to end.
MARGIN_SECONDS = 30
# As long as roles/titanic_database gives the slowest of them.
SERVER_SECONDS = 600


def stopped(cluster: KubernetesClient) -> Stopped | None:
    """Who has stopped it and when, if it is stopped."""
    found = cluster.get("apps/v1", "Deployment", API) or {}
    text = found.get("metadata", {}).get("annotations", {}).get(STOPPED)
    return Stopped.of_text(text) if text and found["spec"]["replicas"] == 0 else None


def stop(cluster: KubernetesClient, records: ClusterRecords, by: str, *, check: bool) -> list[str]:
    """End the API's pods, which answer what they have, then the database's: what was done, in words.

    Raises ClusterError, ReleaseError.
    """
    rollout = _rollout(cluster, records, (0, 0))
    replicas = int(rollout.live["spec"]["replicas"]) if rollout.live else 1
    told = stopped(cluster) or Stopped.now(by, replicas)
    wanted = [_with_annotations(rollout.deployment, {STOPPED: told.text()}), *(map(at_rest, servers(cluster)))]
    steps = []
    for thing in wanted:
        steps += _apply(cluster, thing, "stop", check=check)
        if not check:
            # Also those that an earlier run told to end; nobody writes any more when the database's turn comes.
            _wait_until_gone(cluster, thing)
    return steps


def start(cluster: KubernetesClient, records: ClusterRecords, ready_seconds: float, *, check: bool) -> list[str]:
    """Have as many pods as before, the database's first: what was done, in words. Raises ClusterError, ReleaseError."""
    told = stopped(cluster)
    wanted = [with_managed_labels(thing) for thing in servers(cluster)]
    steps = [step for thing in wanted for step in _apply(cluster, thing, "start", check=check)]
    if not check:
        settle(cluster, wanted, SERVER_SECONDS)
    before = max(told.replicas, 1) if told else 1
    rollout = _rollout(cluster, records, (before, before if told else MANY))
    if rollout.changes(check=check):
        steps.append(f"start release {rollout.release}")
    if not check:
        rollout.roll_out(ready_seconds)
    return steps


def _apply(cluster: KubernetesClient, thing: Object, verb: str, *, check: bool) -> list[str]:
    """Have an object so, if it is not: the step that this is, in words. Raises ClusterError."""
    if not planned(cluster, thing, check=check).needed:
        return []
    if not check:
        cluster.apply(thing)
    return [f"{verb} {object_label(thing)}"]


def servers(cluster: KubernetesClient) -> list[Object]:
    """What runs the database, as it was applied; nothing where somebody else runs it."""
    return [thing for thing in applied(cluster).get(DATABASE, []) if thing["kind"] in RUNNING]


def _rollout(cluster: KubernetesClient, records: ClusterRecords, replicas: tuple[int, int]) -> Rollout:
    """The release of the ledger. Raises ValueError where there is none."""
    current = records.ledger().current()
    objects = records.objects(current.release) if current else []
    if not objects:
        raise ValueError(f"nothing is deployed in namespace {cluster.namespace}: there is nothing to stop or to start")
    return Rollout(cluster, objects, replicas)


def at_rest(server: Object) -> Object:
    """The same without a pod."""
    if server["kind"] == "StatefulSet":
        return with_managed_labels(server | {"spec": server["spec"] | {"replicas": 0}})
    return with_managed_labels(_with_annotations(server, HIBERNATES))


def _with_annotations(thing: Object, more: Mapping[str, str]) -> Object:
    metadata = thing["metadata"]
    return thing | {"metadata": {**metadata, "annotations": {**(metadata.get("annotations") or {}), **more}}}


def _wait_until_gone(cluster: KubernetesClient, thing: Object) -> None:
    """Return once no pod of it is left. Raises ClusterError if one stays."""
    template: Mapping[str, Any] = thing["spec"].get("template", {}).get("spec", {})
    seconds = int(template.get("terminationGracePeriodSeconds", SERVER_SECONDS)) + MARGIN_SECONDS
    wait_until_gone(lambda: cluster.list("v1", "Pod", **LABELS_OF[thing["kind"]](thing)), seconds)


LABELS_OF: dict[str, Callable[[Object], dict[str, str]]] = {
    "Deployment": lambda wanted: dict(wanted["spec"]["selector"]["matchLabels"]),
    **{kind: labels for kind, (_, labels) in RUNNING.items()},
}
