# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that run a server, such as a StatefulSet: when they do, and why they do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object, object_label
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.pods import PodWaiter
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError

# A database that starts may be killed and started again, as when its disk comes late.
RESTARTS = 3
# CloudNativePG's word for it (PhaseHealthy in its api/v1/cluster_types.go).
HEALTHY = "Cluster in healthy state"


def rolled_out(found: Mapping[str, Any] | None) -> bool:
    """Whether a StatefulSet runs as it is described, all of its pods ready."""
    if not found:
        return False
    spec, status = found["spec"], found.get("status", {})
    return bool(
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("readyReplicas", 0) == spec.get("replicas", 1)
        and status.get("currentRevision") == status.get("updateRevision")
    )


def healthy(found: Mapping[str, Any] | None) -> bool:
    """Whether all servers of a Cluster of CloudNativePG are ready, and its operator content."""
    if not found:
        return False
    status = found.get("status", {})
    return bool(status.get("phase") == HEALTHY and status.get("readyInstances", 0) == found["spec"]["instances"])


def said_of(found: Mapping[str, Any] | None) -> str:
    """What the operator says of a Cluster that is not healthy."""
    status = (found or {}).get("status", {})
    phase = str(status.get("phase") or "its operator has not looked at it. Is CloudNativePG running?")
    return ": ".join(part for part in (phase, str(status.get("phaseReason") or "")) if part)


# For each kind that runs something: when it does, and the labels of its pods.
RUNNING: dict[str, tuple[Callable[[Mapping[str, Any] | None], bool], Callable[[Object], dict[str, str]]]] = {
    "StatefulSet": (rolled_out, lambda wanted: dict(wanted["spec"]["selector"]["matchLabels"])),
    "Cluster": (healthy, lambda wanted: {"cnpg.io/cluster": str(wanted["metadata"]["name"])}),
}


def settled(cluster: KubernetesClient, objects: list[Object]) -> bool:
    """Whether all of it that runs something does so now."""
    return all(
        RUNNING[wanted["kind"]][0](cluster.get(wanted["apiVersion"], wanted["kind"], wanted["metadata"]["name"]))
        for wanted in objects
        if wanted["kind"] in RUNNING
    )


def settle(cluster: KubernetesClient, objects: list[Object], seconds: float) -> None:
    """Wait for what runs something. Raises ReleaseError."""
    for wanted in objects:
        if wanted["kind"] not in RUNNING:
            continue
        done, labels = RUNNING[wanted["kind"]]
        key = (wanted["apiVersion"], wanted["kind"], wanted["metadata"]["name"])
        if done(cluster.get(*key)):
            continue
        watch = PodWaiter(cluster, labels(wanted), RESTARTS)
        try:
            watch.until(lambda key=key, done=done: done(cluster.get(*key)), seconds)  # type: ignore[misc]
        except ReleaseError as error:
            told = f" ({said_of(cluster.get(*key))})" if wanted["kind"] == "Cluster" else ""
            raise ReleaseError(f"{object_label(wanted)} does not run{told}: {error}") from error
