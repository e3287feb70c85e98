# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of one stage of a deployment to Kubernetes: as they should be, and none that are no longer wanted."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import json_bytes
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import (
    LABELS,
    Object,
    is_written_by_us,
    object_label,
    with_managed_labels,
    without_server_fields,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.volumes import TEMPLATES, differ, fit, let_go

# The objects that each stage has made, so that one which is no longer wanted goes, and one that drifts is told of.
STAGES = "titanic-stages"
# All secrets, from which those that pods read are made; nothing but the collection reads it.
SECRETS = "titanic-secrets"
PREFIX = "whitestar.deploy/"
# What is in a Secret.
HIDDEN = ("data", "stringData")
# What an operator makes of a store's secrets, where they come from one: who reads what keeps its name.
SYNCED = ("titanic-owner", "titanic-api", "titanic-database")
REFERENCES = ("secret", "passwordSecret")
CONTENT = f"{PREFIX}content-of-"
HASH_DIGITS = 10


@dataclass(frozen=True)
class Change:
    """An object before and after; one of them is empty where it comes or goes.

    ``refused`` is why it can only be applied once our lists are in the place of those that others have made longer.
    """

    wanted: Object
    before: Object
    after: Object
    refused: ClusterError | None = None

    @property
    def needed(self) -> bool:
        """Whether anything is to be done."""
        return without_server_fields(self.before or None) != without_server_fields(self.after or None)

    def __str__(self) -> str:
        verb = "make" if not self.before else "change" if self.after else "remove"
        return f"{verb} {object_label(self.wanted)}"


def secret_names(cluster: KubernetesClient) -> dict[str, str]:
    """The Secret that stands for each name now: their names end with a hash of what is in them."""
    return names_in(cluster.get("v1", "Secret", SECRETS))


def names_in(found: Mapping[str, Any] | None) -> dict[str, str]:
    """The same of the Secret that has all of them."""
    annotations = (found or {}).get("metadata", {}).get("annotations", {})
    return {key.removeprefix(PREFIX): name for key, name in annotations.items() if key.startswith(PREFIX)}


def resolved(value: Any, names: Mapping[str, str], within: str = "") -> Any:
    """``value`` with each name of a Secret replaced by that of the Secret which stands for it.

    Such are ``secretName`` and, as operators have it, ``name`` in a ``secret`` or ``passwordSecret``.
    """
    if isinstance(value, list):
        return [resolved(item, names) for item in value]
    if not isinstance(value, Mapping):
        return value
    naming = {"secretName"} | ({"name"} if within in REFERENCES else set())
    return {
        key: names.get(item, item) if key in naming and isinstance(item, str) else resolved(item, names, key)
        for key, item in value.items()
    }


def with_secret_hash(cluster: KubernetesClient, thing: Object, names: Mapping[str, str]) -> Object:
    """An object whose pods are started anew when a Secret changes that keeps its name, since others write it.

    Those that :func:`secret_names` knows have another name then. The mark is a keyed hash.
    """
    template = thing.get("spec", {}).get("template")
    if not template:
        return thing
    volumes = template["spec"].get("volumes", [])
    mounted = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume} - set(names.values())
    marks = {
        f"{CONTENT}{name}": content_mark(found) for name in mounted if (found := cluster.get("v1", "Secret", name))
    }
    if not marks:
        return thing
    metadata = template["metadata"] | {"annotations": template["metadata"].get("annotations", {}) | marks}
    return thing | {"spec": thing["spec"] | {"template": template | {"metadata": metadata}}}


def content_mark(secret: Mapping[str, Any]) -> str:
    """A hash that tells that a Secret's content changed and nothing about it: only who may read it knows its uid."""
    key = str(secret["metadata"]["uid"]).encode()
    return hmac.new(key, json_bytes(secret.get("data") or {}), hashlib.sha256).hexdigest()[:HASH_DIGITS]


def planned(cluster: KubernetesClient, wanted: Object, *, check: bool) -> Change:
    """What would become of an object. Raises ClusterError, naming it, if the cluster refuses it."""
    before = cluster.get(wanted["apiVersion"], wanted["kind"], wanted["metadata"]["name"])
    try:
        if makes_anew(before, wanted):
            return Change(wanted, before or {}, _anew(cluster, before, wanted))
        try:
            return Change(wanted, before or {}, cluster.try_apply(wanted, check=True))
        except ClusterError as error:
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            return Change(wanted, before or {}, cluster.overwrite(wanted, error, check=True), error)
    except ClusterError as error:
        if error.status == HTTPStatus.FORBIDDEN and _is_kept_by_others(wanted, before):
            return Change(wanted, before or {}, before or {})
        if error.status == HTTPStatus.NOT_FOUND and check:
            # There is no namespace yet to try it in.
            return Change(wanted, {}, wanted)
        raise ClusterError(f"the cluster refuses {object_label(wanted)}: {error}", error.status) from error


def makes_anew(before: Object | None, wanted: Object) -> bool:
    """Whether it is a StatefulSet whose volumes are to be others than they are."""
    return wanted["kind"] == "StatefulSet" and bool(before) and differ(before or {}, wanted)


def _anew(cluster: KubernetesClient, before: Object | None, wanted: Object) -> Object:
    """What would become of it. Raises ClusterError."""
    fit(cluster, before, wanted, check=True)
    kept = {TEMPLATES: (before or {})["spec"][TEMPLATES]}
    found = cluster.apply(wanted | {"spec": wanted["spec"] | kept}, check=True)
    return found | {"spec": found["spec"] | {TEMPLATES: wanted["spec"][TEMPLATES]}}


def _is_kept_by_others(wanted: Object, found: Object | None) -> bool:
    """Whether it is the namespace, made as we want it by somebody who may do more than we."""
    labels = (found or {}).get("metadata", {}).get("labels", {})
    mine = wanted["metadata"]["labels"].items() - LABELS.items()
    return wanted["kind"] == "Namespace" and found is not None and mine <= labels.items()


def to_apply(changes: Iterable[Change]) -> list[Object]:
    """The objects that are to be applied, in order: not the namespace, and no StatefulSet that is made anew."""
    return [
        change.wanted
        for change in changes
        if change.after and change.wanted["kind"] != "Namespace" and not makes_anew(change.before, change.wanted)
    ]


def to_remove(changes: Iterable[Change]) -> list[Object]:
    """What names the objects that are to go, in order."""
    return [
        {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}
        for api_version, kind, name in (_key(change.wanted) for change in changes if not change.after)
    ]


class Stage:
    """The objects of a stage of this name."""

    def __init__(self, cluster: KubernetesClient, name: str, objects: Iterable[Mapping[str, Any]]) -> None:
        self.cluster = cluster
        self.name = name
        self.objects = [with_managed_labels(wanted) for wanted in objects]

    def changes(self, *, check: bool) -> list[Change]:
        """What has to be done, in order; each object has a dry run before the first is changed. Raises ClusterError."""
        recorded = self._recorded()
        found = [*self._try_out(self.objects, recorded, check=check), *self._unwanted(recorded)]
        return [change for change in found if change.needed]

    def try_out(self, *, check: bool) -> None:
        """Try out each object that differs from the one that was applied last. Raises ClusterError."""
        recorded = self._recorded()
        self._try_out([wanted for wanted in self.objects if recordable(wanted) not in recorded], recorded, check=check)

    def _try_out(self, objects: Sequence[Object], recorded: Sequence[Object], *, check: bool) -> list[Change]:
        # On a first run the namespace is one of them.
        makes = any(wanted["kind"] == "Namespace" for wanted in objects)
        keys = [_key(thing) for thing in recorded]
        for wanted in objects:
            if _key(wanted) not in keys and wanted["kind"] != "Namespace" and self._is_of_others(wanted):
                remedy = "Choose another namespace (titanic_project), or remove it first."
                raise ClusterError(f"{object_label(wanted)} is not of this deployment. {remedy}", HTTPStatus.CONFLICT)
        return [planned(self.cluster, wanted, check=check or makes) for wanted in objects]

    def apply(self, changes: Sequence[Change]) -> None:
        """Do them."""
        self.begin(changes)
        for wanted in to_apply(changes):
            self.cluster.apply(wanted)
        for gone in to_remove(changes):
            self.cluster.delete(*_key(gone))
        self.end()

    def begin(self, changes: Sequence[Change]) -> None:
        """Do what comes before objects are applied and removed: what is to be made is written down before it is made.

        The record lies in the namespace, which is therefore made here.
        """
        for change in changes:
            if change.wanted["kind"] == "Namespace":
                self.cluster.apply(change.wanted)
        wanted = [recordable(thing) for thing in self.objects]
        keys = [_key(thing) for thing in wanted]
        gone = [thing for thing in self._recorded() if _key(thing) not in keys] if changes else []
        self._record([*wanted, *gone])
        for change in changes:
            if change.refused:
                self.cluster.overwrite(change.wanted, change.refused)

    def end(self) -> bool:
        """Do what comes after it; whether a StatefulSet was made anew, for other volumes."""
        anew = False
        for wanted in self.objects:
            before = self.cluster.get(*_key(wanted)) if wanted["kind"] == "StatefulSet" else None
            if makes_anew(before, wanted):
                fit(self.cluster, before, wanted, check=False)
                let_go(self.cluster, wanted)
                self.cluster.apply(wanted)
                anew = True
        self._record([recordable(thing) for thing in self.objects])
        return anew

    def _is_of_others(self, wanted: Object) -> bool:
        """Whether there is such an object, and nothing in it is ours."""
        found = self.cluster.get(wanted["apiVersion"], wanted["kind"], wanted["metadata"]["name"])
        return found is not None and not is_written_by_us(found)

    def _unwanted(self, recorded: Sequence[Object]) -> list[Change]:
        """What the stage has made before and is no longer wanted, last first."""
        wanted = [_key(thing) for thing in self.objects]
        gone = []
        for api_version, kind, name in map(_key, reversed(recorded)):
            # A namespace that others may use by now goes with a teardown, or stays.
            unwanted = kind != "Namespace" and [api_version, kind, name] not in wanted
            if unwanted and (found := self.cluster.get(api_version, kind, name)):
                gone.append(Change({"apiVersion": api_version, "kind": kind, **found}, found, {}))
        return gone

    def _recorded(self) -> list[Object]:
        return applied(self.cluster).get(self.name, [])

    def _record(self, objects: Sequence[Object]) -> None:
        """Write down what the stage has, where that is not what is written."""
        if self._recorded() == objects:
            return
        found = record(self.cluster, STAGES)
        data = dict(found.get("data", {})) | {self.name: json.dumps(objects)}
        metadata = {"name": STAGES}
        self.cluster.apply(
            with_managed_labels({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
        )


def record(cluster: KubernetesClient, name: str) -> Object:
    """A ConfigMap of this name that a deployment has written, or somebody has restored; empty where there is none.

    Raises ClusterError.
    """
    found = cluster.get("v1", "ConfigMap", name) or {}
    labels = found.get("metadata", {}).get("labels") or {}
    return found if found and (is_written_by_us(found) or LABELS.items() <= labels.items()) else {}


def recorded(cluster: KubernetesClient) -> dict[str, list[list[str]]]:
    """What each stage has made: API version, kind and name of each object."""
    return {stage: [_key(thing) for thing in objects] for stage, objects in applied(cluster).items()}


def applied(cluster: KubernetesClient) -> dict[str, list[Object]]:
    """The objects of each stage as they were applied last; Secrets without what is in them.

    Raises ClusterError, and ValueError for a record that cannot be read.
    """
    data = record(cluster, STAGES).get("data", {})
    try:
        return {stage: json.loads(objects) for stage, objects in data.items()}
    except ValueError as error:
        raise ValueError(f"ConfigMap {STAGES} is not readable ({error}). Restore it, or delete it.") from error


def recordable(thing: Object) -> Object:
    """An object as a ConfigMap may hold it: of a Secret nothing that is in it."""
    return {key: value for key, value in thing.items() if key not in HIDDEN} if thing["kind"] == "Secret" else thing


def _key(thing: Mapping[str, Any]) -> list[str]:
    return [thing["apiVersion"], thing["kind"], thing["metadata"]["name"]]


def difference(changes: Iterable[Change]) -> dict[str, str]:
    """A module's diff of some changes; what is in Secrets is left out."""
    kept = list(changes)
    return {
        "before": "".join(_shown(change.wanted, change.before) for change in kept),
        "after": "".join(_shown(change.wanted, change.after) for change in kept),
    }


def _shown(wanted: Object, thing: Object) -> str:
    if not thing:
        return ""
    shown = recordable({**without_server_fields(thing), "kind": wanted["kind"]})
    return f"# {object_label(wanted)}\n{json_bytes(shown).decode()}"
