# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintenance of a namespace: the Service of the API selects pods that answer everything with a message."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import API, COMPONENT
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import MANAGER, Object
from ansible_collections.whitestar.deploy.plugins.module_utils.release.maintenance import RECORD, Maintenance

NAME = "titanic-maintenance"
SELECTED = {True: "maintenance", False: "api"}


def maintenance(cluster: KubernetesClient) -> Maintenance | None:
    """The one that is on."""
    found = cluster.get("v1", "ConfigMap", NAME)
    return Maintenance(**json.loads(found["data"][RECORD])) if found else None


def selecting(cluster: KubernetesClient, objects: Sequence[Object]) -> list[Object]:
    """The objects, the API's Service among them as it is during a maintenance while there is one."""
    if not any(_is_front(thing) for thing in objects) or maintenance(cluster) is None:
        return list(objects)
    during = {COMPONENT: SELECTED[True]}
    return [_with_selector(thing, during) if _is_front(thing) else thing for thing in objects]


def as_it_is_now(cluster: KubernetesClient, objects: Sequence[Object]) -> list[Object]:
    """Objects as they were applied, the API's Service among them as a maintenance has left it since."""
    now = {COMPONENT: SELECTED[maintenance(cluster) is not None]}
    return [_with_selector(thing, now) if _is_front(thing) else thing for thing in objects]


def _is_front(thing: Object) -> bool:
    return (thing["kind"], thing["metadata"]["name"]) == ("Service", API)


def _with_selector(service: Object, over: Mapping[str, str]) -> Object:
    return service | {"spec": service["spec"] | {"selector": service["spec"]["selector"] | over}}


def select(cluster: KubernetesClient, *, maintained: bool) -> None:
    """Have the Service send everything to the message, or to the API again. Raises ClusterError."""
    change = {"spec": {"selector": {COMPONENT: SELECTED[maintained]}}}
    cluster.request(
        "PATCH", cluster.address("v1", "Service", API), change, "application/merge-patch+json", fieldManager=MANAGER
    )
