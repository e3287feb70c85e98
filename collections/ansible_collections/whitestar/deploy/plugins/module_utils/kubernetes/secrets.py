# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in Secrets of ours, the hash of it that their names end with, and the login that goes with them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import (
    HASH_DIGITS,
    PREFIX,
    SECRETS,
    names_in,
    resolved,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object, with_managed_labels
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import USER, Rotation

# The key of the hashes in names; it stays where the secrets are.
KEY = ".name-key"
# What rotations have come to, beside the secrets, so that both change at once.
ROTATION = ".rotation"


def decoded(found: Mapping[str, Any] | None) -> dict[str, str]:
    """What is in a Secret."""
    return {name: base64.b64decode(value).decode() for name, value in ((found or {}).get("data") or {}).items()}


def keyed(key: str, values: Mapping[str, str]) -> str:
    """A hash that tells that a secret changed and nothing about it."""
    digest = hmac.new(key.encode(), digestmod=hashlib.sha256)
    for name, value in sorted(values.items()):
        digest.update(f"{name} {len(value)} {value}".encode())
    return digest.hexdigest()[:HASH_DIGITS]


def encoded(values: Mapping[str, str]) -> dict[str, str]:
    """The ``data`` of a Secret."""
    return {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}


def rotation_in(found: Mapping[str, Any] | None) -> Rotation:
    """What rotations have come to, in the Secret that has all of them. Raises ValueError if it cannot be read."""
    return rotation_of(decoded(found))


def rotation_of(secrets: Mapping[str, str]) -> Rotation:
    """The same out of all secrets by name."""
    try:
        return Rotation.of_document(json.loads(secrets.get(ROTATION, "{}")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"Secret {SECRETS}: {ROTATION} is not readable ({error}). Restore it.") from error


def write_rotation(cluster: KubernetesClient, rotation: Rotation) -> None:
    """Record it, and leave the secrets as they are. Raises ClusterError."""
    found = cluster.get("v1", "Secret", SECRETS)
    annotations = {f"{PREFIX}{reader}": name for reader, name in names_in(found).items()}
    data = {**((found or {}).get("data") or {}), **encoded({ROTATION: json.dumps(rotation.document(), sort_keys=True)})}
    metadata = {"name": SECRETS, "annotations": annotations}
    cluster.apply(with_managed_labels({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}))


def with_current_secrets(cluster: KubernetesClient, objects: Sequence[Object]) -> tuple[list[Object], dict[str, str]]:
    """The objects of a release with the Secrets and the login that it has now, and the Secret for each name.

    Raises ValueError, ClusterError.
    """
    found = cluster.get("v1", "Secret", SECRETS)
    names, login = names_in(found), rotation_in(found).wanted
    made: list[Object] = resolved(list(objects), names)
    roles = [thing["data"][USER] for thing in made if thing["kind"] == "ConfigMap" and USER in thing.get("data", {})]
    if not login or not roles:
        return made, names
    return [
        _signing_in(thing, f"{roles[0]}{login}") if thing["kind"] == "Deployment" else thing for thing in made
    ], names


def _signing_in(deployment: Object, role: str) -> Object:
    """A Deployment whose first container signs in as this role, whatever the settings of its release say."""
    template = deployment["spec"]["template"]
    first, *others = template["spec"]["containers"]
    kept = [variable for variable in first.get("env", []) if variable["name"] != USER]
    containers = [first | {"env": [*kept, {"name": USER, "value": role}]}, *others]
    spec = template | {"spec": template["spec"] | {"containers": containers}}
    return deployment | {"spec": deployment["spec"] | {"template": spec}}
