# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that the External Secrets Operator makes of what a store has: asked for, waited for, failures told of."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import SYNCED, Stage, content_mark
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object, object_label
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError

STAGE = "secrets"
# The operator's own documentation: any change of an annotation has it read the store at once.
NOW = "force-sync"
POLL_SECONDS = 0.25
# An error that the operator still tells of after so many of its attempts will not mend by itself.
PATIENCE_SECONDS = 15


def condition(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the operator says of an object's readiness; empty before it has looked at it."""
    conditions = thing.get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry["type"] == "Ready"), {})


def version(thing: Mapping[str, Any]) -> str:
    """The object's generation, and a hash of its annotations, when the operator has last read the store for it."""
    return str(thing.get("status", {}).get("syncedResourceVersion", ""))


def synced(thing: Mapping[str, Any], before: str = "") -> bool:
    """Whether the operator is content with an object as it is now, and has read the store since that ``version``."""
    if condition(thing).get("status") != "True":
        return False
    if thing["kind"] != "ExternalSecret":
        return True
    return version(thing).startswith(f"{thing['metadata']['generation']}-") and version(thing) != before


def ensure_synced(cluster: KubernetesClient, objects: Sequence[Object], seconds: float, *, check: bool) -> list[str]:
    """Have the operator's objects, and the Secrets that it makes of them as the store has them now.

    Returns what was done, in words; nothing if the store has what was there. Raises ClusterError, ReleaseError.
    """
    stage = Stage(cluster, STAGE, objects)
    changes = stage.changes(check=check)
    steps = [str(change) for change in changes]
    if check:
        return steps
    before = marks(cluster) if objects else {}
    stage.apply(changes)
    _refresh(cluster, stage.objects, seconds)
    after = marks(cluster) if objects else {}
    return steps + [f"renew Secret {name}" for name in after if after[name] != before.get(name)]


def marks(cluster: KubernetesClient) -> dict[str, str]:
    """What tells one content of the operator's Secrets from another."""
    return {name: content_mark(found) for name in SYNCED if (found := cluster.get("v1", "Secret", name))}


def _refresh(cluster: KubernetesClient, objects: Sequence[Object], seconds: float) -> None:
    """Have the store read now, and return once it has been. Raises ReleaseError with the operator's reason."""
    before: dict[str, str] = {}
    for thing in objects:
        if thing["kind"] == "ExternalSecret":
            key = (thing["apiVersion"], thing["kind"], thing["metadata"]["name"])
            before[object_label(thing)] = version(cluster.get(*key) or {})
            annotation = {"metadata": {"annotations": {NOW: str(time.time())}}}
            cluster.request("PATCH", cluster.address(*key), annotation, "application/merge-patch+json")
    began = time.monotonic()
    for thing in objects:
        _wait(cluster, thing, before.get(object_label(thing), ""), began, seconds)


def _wait(cluster: KubernetesClient, wanted: Object, before: str, began: float, seconds: float) -> None:
    key = (wanted["apiVersion"], wanted["kind"], wanted["metadata"]["name"])
    while not synced(found := cluster.get(*key) or wanted, before):
        waited, told = time.monotonic() - began, condition(found)
        failed = told.get("status") == "False"
        if waited > seconds or (failed and waited > PATIENCE_SECONDS):
            raise ReleaseError(f"{object_label(wanted)} is not ready: {_reason(cluster, found, told)}")
        time.sleep(POLL_SECONDS)


def _reason(cluster: KubernetesClient, thing: Object, told: Mapping[str, Any]) -> str:
    """Why it is not, as the operator has it: its condition, and its last warning, which says more."""
    if not told:
        return "its operator has not looked at it. Is External Secrets running?"
    said = [f"{told.get('reason')}: {told.get('message')}"]
    with suppress(ClusterError, KeyError):
        selector = f"involvedObject.uid={thing['metadata']['uid']},type=Warning"
        events = cluster.request("GET", cluster.address("v1", "Event"), fieldSelector=selector) or {}
        items = sorted(events.get("items", []), key=lambda event: str(event.get("lastTimestamp")))
        said += [str(event["message"]) for event in items[-1:] if event["message"] != told.get("message")]
    return " ".join("; ".join(said).split())
