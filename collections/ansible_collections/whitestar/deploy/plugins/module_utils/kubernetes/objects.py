# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects of Kubernetes as values: what is ours in them, and what somebody has asked for. No cluster is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]
# Who owns the fields that we set, in every object's managedFields.
MANAGER = "whitestar.deploy"
# What every object of ours has, which is how they are told from those of others.
LABELS = {"app.kubernetes.io/managed-by": "whitestar.deploy"}
# With what people stop a workload by hand. Stated, it is ours: drift tells of it, and the next run puts it back.
AT_WORK: dict[str, Object] = {
    "Deployment": {"paused": False},
    "StatefulSet": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}},
}


def object_label(thing: Mapping[str, Any]) -> str:
    """``Deployment titanic-api``."""
    return f"{thing['kind']} {thing['metadata']['name']}"


def is_written_by_us(thing: Mapping[str, Any]) -> bool:
    """Whether anything in an object was written by a deployment, as the cluster itself has noted it."""
    return any(entry.get("manager") == MANAGER for entry in thing["metadata"].get("managedFields", []))


def without_server_fields(thing: Mapping[str, Any] | None) -> Object:
    """An object without what the cluster itself keeps in it: what somebody has asked for."""
    if thing is None:
        return {}
    metadata = {
        key: value
        for key, value in thing.get("metadata", {}).items()
        if key not in ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")
    }
    return {key: value for key, value in thing.items() if key != "status"} | {"metadata": metadata}


def with_managed_labels(wanted: Mapping[str, Any]) -> Object:
    """An object with the labels that every object of ours has, at work unless it says itself that it is not."""
    metadata = dict(wanted["metadata"])
    metadata["labels"] = LABELS | dict(metadata.get("labels") or {})
    found = dict(wanted) | {"metadata": metadata}
    if stated := AT_WORK.get(wanted["kind"]):
        found["spec"] = stated | dict(wanted["spec"])
    return found
