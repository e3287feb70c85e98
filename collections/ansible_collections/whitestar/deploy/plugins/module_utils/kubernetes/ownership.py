# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What in a cluster is of this deployment and what is somebody else's: by who made it, never by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import STAGES, record
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.lease import API, KIND, NAME
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.managed_fields import entries, owner
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import MANAGER, is_written_by_us

# The API server puts this label on every namespace, and notes it for whoever creates one.
NAMED = ("metadata", "labels", "kubernetes.io/metadata.name")
# Kinds of which a deployment has some, and names that these have, but for those that end with a hash.
KINDS = (
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("v1", "LimitRange"),
    ("v1", "ResourceQuota"),
    ("v1", "PersistentVolumeClaim"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
)
NAMES = re.compile(
    r"titanic(-(api|job|secrets|owner|tls|ledger|stages|maintenance|maintenance-server|default-deny|dns|acme|"
    r"backup(-authority)?|database(-(app|owner|clients|cluster|cluster-clients|external))?))?|data-titanic-database-0"
)


def made_by_us(namespace: Mapping[str, Any]) -> bool:
    """Whether a deployment, or an administrator with our playbook, made a namespace."""
    thing = dict(namespace)
    if named := owner(thing, NAMED):
        return bool(named["manager"] == MANAGER)
    # Nobody has that label where it was made by server-side apply.
    return {entry["manager"] for entry in entries(thing) if entry.get("operation") == "Apply"} == {MANAGER}


def refusals(cluster: KubernetesClient, *, adopt: bool) -> list[str]:
    """One sentence for each thing of somebody else's that a deployment would meet. Raises ClusterError."""
    try:
        space = cluster.get("v1", "Namespace", cluster.namespace)
    except ClusterError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        # Who may work in it need not be allowed to look at it, and may not change it either.
        space = None
    name = f"namespace {cluster.namespace}"
    if space and not made_by_us(space) and not adopt:
        remedy = "Choose another, or set titanic_target_namespace_adopt to deploy beside what is in it."
        return [f"titanic_project: {name} is there and was made by somebody else. {remedy}"]
    if record(cluster, STAGES):
        # It has been deployed to; what comes to it is looked at stage by stage.
        return []
    remedy = "Choose another namespace, or remove it first."
    return [f"titanic_project: {thing} in {name} is not of this deployment. {remedy}" for thing in _met(cluster)]


def _met(cluster: KubernetesClient) -> Iterator[str]:
    """What has one of our names and was made by somebody else."""
    # Who deploys may not list these.
    if (lock := cluster.get(API, KIND, NAME)) and not is_written_by_us(lock):
        yield f"{KIND} {NAME}"
    for api_version, kind in KINDS:
        for thing in cluster.list(api_version, kind):
            if NAMES.fullmatch(thing["metadata"]["name"]) and not is_written_by_us(thing):
                yield f"{kind} {thing['metadata']['name']}"
