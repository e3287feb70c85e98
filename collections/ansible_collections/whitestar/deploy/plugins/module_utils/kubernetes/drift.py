# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs in a namespace from what was applied there, and who has the fields that differ.

The cluster itself is asked what it would make of what was applied (server-side dry run). So defaults and the ways to
write a quantity are no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import (
    Difference,
    Path,
    compared,
    in_words,
    value_at,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes import managed_fields
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import (
    CONTENT,
    HASH_DIGITS,
    HIDDEN,
    SECRETS,
    STAGES,
    applied,
    secret_names,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.maintenance import as_it_is_now
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import (
    MANAGER,
    Object,
    object_label,
    without_server_fields,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import LEDGER, ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rollout import MANY, Rollout
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import KEY, decoded, keyed
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.stop import stopped

SCALER = "HorizontalPodAutoscaler"
REPLICAS: Path = ("spec", "replicas")
OURS = re.compile(rf"-[0-9a-f]{{{HASH_DIGITS}}}$")


def objects_drift(cluster: KubernetesClient, records: ClusterRecords) -> Iterator[Difference]:
    """What differs in the objects that stages and the release have made, in Secrets, and in what is recorded of them.

    Raises ClusterError, ValueError.
    """
    made = [thing for objects in applied(cluster).values() for thing in objects]
    release = _release(cluster, records)
    if not made and not release:
        why = "nothing is recorded in it: all of it is gone, or nothing has been deployed"
        yield Difference(f"namespace {cluster.namespace}", said=why)
        return
    if at_rest := stopped(cluster):
        yield at_rest.difference(f"namespace {cluster.namespace}")
        return
    for wanted in [*as_it_is_now(cluster, made), *release]:
        yield from object_drift(cluster, wanted)
    for wanted in release:
        if wanted["kind"] == "Deployment":
            yield from replicas_drift(cluster, wanted, made)
    yield from _secrets(cluster)
    for name in (STAGES, LEDGER):
        yield from _record(cluster, name)


def _release(cluster: KubernetesClient, records: ClusterRecords) -> list[Object]:
    """The objects of the release that serves, with as many pods as there are."""
    current = records.ledger().current()
    objects = records.objects(current.release) if current else []
    if not objects:
        return []
    rollout = Rollout(cluster, objects, (0, MANY))
    if rollout.live:
        _keep_secrets(rollout.deployment, rollout.live)
    return rollout.objects


def _keep_secrets(wanted: Object, live: Object) -> None:
    """Have pods of ``wanted`` read what the live ones were given of our Secrets, since nothing newer was applied."""
    names = {_reader(secret["secretName"]): secret["secretName"] for secret in _mounted(live)}
    for secret in _mounted(wanted):
        secret["secretName"] = names.get(_reader(secret["secretName"]), secret["secretName"])
    marks = live["spec"]["template"]["metadata"].get("annotations", {})
    annotations = wanted["spec"]["template"]["metadata"]["annotations"]
    annotations |= {key: marks[key] for key in annotations if key.startswith(CONTENT) and key in marks}


def _mounted(deployment: Object) -> list[dict[str, Any]]:
    """The Secrets that its pods read."""
    volumes = deployment["spec"]["template"]["spec"].get("volumes", [])
    return [volume["secret"] for volume in volumes if "secret" in volume]


def _reader(name: str) -> str:
    """Whose Secret it is by its name, without the hash that ours end with."""
    return OURS.sub("", name)


def object_drift(cluster: KubernetesClient, wanted: Object) -> Iterator[Difference]:
    """What differs between an object as it was applied and as it is. Raises ClusterError."""
    what = object_label(wanted)
    key = (wanted["apiVersion"], wanted["kind"], wanted["metadata"]["name"])
    live = cluster.get(*key)
    if live is None:
        yield Difference(what, said="is gone")
        return
    if at := live["metadata"].get("deletionTimestamp"):
        yield Difference(what, said="is being removed", at=str(at))
    try:
        again = cluster.apply(_with_content(wanted, live), check=True)
    except ClusterError as error:
        yield Difference(what, said=f"the cluster refuses now what was applied: {error}", **_last_writer(live))
        return
    found = [*_changed(what, wanted, live, again), *_added(what, live, again)]
    yield from (_hidden(each) for each in found) if wanted["kind"] == "Secret" else found


def _with_content(wanted: Object, live: Object) -> Object:
    """Of a Secret, whose content is not recorded, with that which is ours still; otherwise we would give it up."""
    if wanted["kind"] != "Secret":
        return wanted
    mine = managed_fields.own(live).get("f:data", {})
    return wanted | {"data": {name: value for name, value in live.get("data", {}).items() if f"f:{name}" in mine}}


def _changed(what: str, wanted: Object, live: Object, again: Object) -> Iterator[Difference]:
    """The fields that would be set, or set back."""
    for path, then, now in compared(without_server_fields(again), without_server_fields(live)):
        meant = value_at(wanted, path)
        yield Difference(
            what, in_words(path), then if meant is None else meant, now, **_who(managed_fields.owner(live, path))
        )


def _added(what: str, live: Object, again: Object) -> Iterator[Difference]:
    """The fields that others have put beside ours and would keep, and those of ours that they claim too."""
    mine = managed_fields.own(again)
    differing = {in_words(path) for path, _, _ in compared(without_server_fields(again), without_server_fields(live))}
    for entry in managed_fields.others(again):
        tree = entry.get("fieldsV1", {})
        for path, value in managed_fields.beside(tree, mine, live):
            if value is not None and not any(in_words(path[:length]) in differing for length in range(len(path) + 1)):
                yield Difference(what, in_words(path), live=value, **_who(entry))
        if entry.get("operation") == "Apply":
            for path in managed_fields.shared(tree, mine, live):
                yield Difference(what, in_words(path), said="is applied by somebody else too", **_who(entry))


def _hidden(found: Difference) -> Difference:
    """Without what is in a Secret."""
    secret = found.path.startswith(HIDDEN) and not found.said
    return replace(found, applied=None, live=None, said="is another than was applied") if secret else found


def replicas_drift(cluster: KubernetesClient, wanted: Object, made: list[Object]) -> Iterator[Difference]:
    """How many pods there are, where neither we nor an autoscaler of ours within its bounds decided that.

    ``made`` is what the stages have made, in which the autoscaler is.
    """
    live = cluster.get(wanted["apiVersion"], wanted["kind"], wanted["metadata"]["name"])
    having = managed_fields.owner(live, REPLICAS) if live else None
    # Who scales to none by its subresource leaves no name: zero is no value there.
    if live is None or (having and having["manager"] == MANAGER):
        return
    count = int(live["spec"]["replicas"])
    name = wanted["metadata"]["name"]
    for scaler in (thing["spec"] for thing in made if thing["kind"] == SCALER):
        if scaler["scaleTargetRef"]["name"] == name and scaler["minReplicas"] <= count <= scaler["maxReplicas"]:
            return
    yield Difference(object_label(wanted), in_words(REPLICAS), live=count, said=f"was set to {count}", **_who(having))


def _secrets(cluster: KubernetesClient) -> Iterator[Difference]:
    """Secrets that are gone or hold something else; by name only."""
    kept = cluster.get("v1", "Secret", SECRETS)
    if kept is None:
        yield Difference(f"Secret {SECRETS}", said="is gone")
        return
    said = "is another than was applied"
    for path, _ in _foreign(kept):
        yield Difference(f"Secret {SECRETS}", in_words(path), said=said, **_who(managed_fields.owner(kept, path)))
    key = decoded(kept).get(KEY, "")
    for name in secret_names(cluster).values():
        found = cluster.get("v1", "Secret", name)
        if found is None:
            yield Difference(f"Secret {name}", said="is gone")
        elif not name.endswith(f"-{keyed(key, decoded(found))}"):
            yield Difference(f"Secret {name}", "data", said=said, **_who(managed_fields.owner(found, ("data",))))


def _record(cluster: KubernetesClient, name: str) -> Iterator[Difference]:
    """What is recorded, where somebody else has written it."""
    found = cluster.get("v1", "ConfigMap", name)
    if found is None:
        yield Difference(f"ConfigMap {name}", said="is gone")
        return
    for path, _ in _foreign(found):
        said = "what is recorded was changed"
        yield Difference(f"ConfigMap {name}", in_words(path), said=said, **_who(managed_fields.owner(found, path)))


def _foreign(thing: Object) -> Iterator[tuple[Path, Any]]:
    """The fields that others have and we have not."""
    for entry in managed_fields.others(thing):
        yield from managed_fields.beside(entry.get("fieldsV1", {}), managed_fields.own(thing), thing)


def _who(entry: managed_fields.Entry | None) -> Mapping[str, str]:
    """Who and when, as the fields of a Difference."""
    return {"by": str(entry["manager"]), "at": str(entry.get("time", ""))} if entry else {}


def _last_writer(thing: Object) -> Mapping[str, str]:
    return _who(next(iter(managed_fields.entries(thing)), None))
