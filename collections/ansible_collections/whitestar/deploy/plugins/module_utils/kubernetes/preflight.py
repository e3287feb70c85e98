# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a deployment would fail on a cluster later: what that lacks, refuses or has of others. Nothing is touched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import applied, planned
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import (
    OLDEST,
    ClusterError,
    KubernetesClient,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import merge_overrides
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.ownership import refusals
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rbac import missing_permissions
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rollout import MANY, Rollout
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.stop import stopped
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.volumes import (
    CLASS,
    SIZE,
    VolumeError,
    fit,
    with_volume,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.stopped import refusal

VOLUME_VARIABLES = {SIZE: "titanic_database_storage", CLASS: "titanic_database_storage_class"}


def problems(cluster: KubernetesClient, options: dict[str, Any]) -> list[str]:
    """One sentence for each reason why the run would fail here, with the variable and the remedy."""
    try:
        version = cluster.version()
    except ClusterError as error:
        return [unreachable(error)]
    number = re.match(r"v(\d+)\.(\d+)", version)
    if number and (int(number[1]), int(number[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return [f"titanic_cluster: the cluster is {version}, {oldest} or later is needed. Upgrade it."]
    at_rest = refusal(stopped(cluster)) if options["needs_running"] else []
    if at_rest or not options["deploys"]:
        return at_rest
    # Who may not even list cannot be told what is there.
    return denied(cluster) or [
        *refusals(cluster, adopt=options["adopt"]),
        *missing(cluster, options["required_resources"]),
        *unchangeable(cluster, options["volume"] or {}, options["overlays"]),
    ]


def unreachable(error: ClusterError) -> str:
    """Why the cluster cannot be used, with the variable and the remedy."""
    return (
        f"titanic_cluster: {str(error).rstrip('.')}. Check kubectl, kubeconfig and context, and that the cluster is up."
    )


def denied(cluster: KubernetesClient) -> list[str]:
    """What these credentials may not do in the namespace, as the cluster itself has it."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
    asked = cluster.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        review | {"spec": {"namespace": cluster.namespace}},
    )
    status = (asked or {}).get("status", {})
    if status.get("incomplete"):
        # A webhook decides, which does not list what it would allow.
        return []
    found = missing_permissions(status.get("resourceRules", []))
    if not found:
        return []
    what = f"these credentials may not {', '.join(found)} in namespace {cluster.namespace}"
    remedy = "Use others, or have an administrator make some (playbooks/make-deployer.yml)."
    return [f"titanic_cluster: {what}. {remedy}"]


def missing(cluster: KubernetesClient, required: list[dict[str, Any]]) -> list[str]:
    """One sentence for each thing that the deployment rests on and the cluster does not have."""
    found = []
    for need in required:
        try:
            what = lack(cluster, need)
        except ClusterError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            # Who may work in one namespace need not be allowed to look at what belongs to all.
            continue
        if what:
            found.append(f"{need['variable']}: {what}. {need['remedy']}")
    return found


def lack(cluster: KubernetesClient, need: dict[str, Any]) -> str:
    """What a cluster lacks of one need, in words; empty if it lacks nothing. Raises ClusterError."""
    key = (need["api_version"], need["kind"])
    if not cluster.knows(*key):
        return f"the cluster knows no {need['kind']} ({need['api_version']})"
    if need["name"]:
        if cluster.get(*key, need["name"]):
            return ""
        names = sorted(str(thing["metadata"]["name"]) for thing in cluster.list(*key))
        return f"the cluster has no {need['kind']} {need['name']} (it has {', '.join(names) or 'none'})"
    if need["default"]:
        annotations = [thing["metadata"].get("annotations") or {} for thing in cluster.list(*key)]
        if not any(found.get(need["default"]) == "true" for found in annotations):
            return f"the cluster has no default {need['kind']}"
    return ""


def unchangeable(cluster: KubernetesClient, volume: dict[str, Any], overlays: list[dict[str, Any]]) -> list[str]:
    """One sentence for each setting that what is there cannot be changed to. Raises ClusterError."""
    made = applied(cluster)
    found = []
    for thing in made.get("database", []) if volume else []:
        if thing["kind"] in ("StatefulSet", "Cluster"):
            before = cluster.get(thing["apiVersion"], thing["kind"], thing["metadata"]["name"])
            try:
                fit(cluster, before, with_volume(thing, volume["size"], volume["storage_class"]), check=True)
            except VolumeError as error:
                found.append(f"{VOLUME_VARIABLES[error.what]}: {error}")
    for overlay in overlays:
        refused = _refusals(cluster, made.get(overlay["stage"], []), overlay)
        found += [f"{overlay['variable']}: {str(error).rstrip('.')}. Change it, or leave it out." for error in refused]
    return found


def _refusals(cluster: KubernetesClient, made: list[Object], overlay: dict[str, Any]) -> Iterator[ClusterError]:
    """Why the cluster refuses objects with what is laid over them, for each that it refuses."""
    over = overlay["over"]
    changed = merge_overrides([thing for thing in made if thing["kind"] in over], over)
    tries: list[Callable[[], Any]] = [partial(planned, cluster, thing, check=True) for thing in changed]
    if overlay["stage"] == "api" and "Deployment" in over:
        records = ClusterRecords(cluster)
        current = records.ledger().current()
        if objects := records.objects(current.release) if current else []:
            tries.append(partial(Rollout(cluster, merge_overrides(objects, over), (0, MANY)).changes, check=True))
    for attempt in tries:
        try:
            attempt()
        except ClusterError as error:
            if not error.status:
                raise
            yield error
