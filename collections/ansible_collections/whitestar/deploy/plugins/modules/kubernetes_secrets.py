#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep secrets in a namespace, given or generated, and for each program a Secret with what it alone reads."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_secrets
short_description: Keep secrets as Secrets
description:
  - Keeps all secrets in one Secret that no pod reads, and makes of them one Secret for each reader. Those are
    immutable, and their names end with a keyed hash of what is in them, so that a changed secret makes a new one and
    whoever reads it is started anew.
  - A generated secret is made once and stays until it is rotated. A rotation gives secrets new values and records that
    beside them, which is told of until O(finish).
  - A Secret that nothing uses any longer is removed by the next run that writes one.
  - Secrets may come from a store instead, by way of the External Secrets Operator. Its objects are kept, the store is
    read anew in every run, and a failure is told by the operator's reason.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.cluster
options:
  given: {description: Secrets by name., type: dict, default: {}}
  generated:
    description: Names of secrets to generate, unless they are given or there.
    type: list
    elements: str
    default: []
  readers:
    description: >-
      For each reader its secrets, a list of names, or names by what the reader calls them. Those that are neither given
      nor generated are left out.
    type: dict
    default: {}
  plain:
    description: For each reader what else is in its Secret and is none, such as the name of an account.
    type: dict
    default: {}
  types: {description: "Type of the Secret of a reader, where it is not C(Opaque).", type: dict, default: {}}
  objects:
    description: Objects of the External Secrets Operator, by which secrets come from a store.
    type: list
    elements: dict
    default: []
  seconds: {description: "How long the operator may take, in seconds.", type: float, default: 60}
  initial:
    description: >-
      For each reader the secrets that it needs for its first start alone. One of them that changes is no reason to
      start it anew.
    type: dict
    default: {}
  rotate:
    description: >-
      Kinds of secrets that get new values. Of V(database) it is the password of the login whose turn it is,
      V(superuser) is the passwords of administrator and owner, V(tokens) leaves the old write tokens good for
      O(overlap_seconds), V(tls) is the certificates that are given. One that was begun before goes on. Refuses what
      is given as it is.
    type: list
    elements: str
    choices: [database, superuser, tokens, tls]
    default: []
  overlap_seconds:
    description: How long old write tokens are good beside the new ones, in seconds.
    type: int
    default: 300
  by: {description: Who rotates., type: str, default: somebody}
  finish:
    description: Whether only to record that everything uses the new values, so that what was rotated is finished.
    type: bool
    default: false
attributes:
  check_mode: {description: Says which secrets would be written., support: full}
  diff_mode: {description: Shows names only., support: full}
"""

EXAMPLES = r"""
- name: Apply the Secrets
  whitestar.deploy.kubernetes_secrets:
    cluster: {namespace: titanic}
    generated: [database_owner_password, database_app_password]
    readers:
      titanic-api: [database_app_password]
      titanic-owner: [database_owner_password]
  no_log: true
"""

RETURN = r"""
written: {description: Names of the secrets that were written., returned: success, type: list, elements: str}
steps:
  description: What was done about those that come from a store, and what was finished, in words.
  returned: success
  type: list
  elements: str
"""

import json
import re
import secrets
from collections.abc import Collection, Container, Iterator, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import PREFIX, SECRETS, names_in
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.external_secrets import ensure_synced
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import (
    LABELS,
    Object,
    with_managed_labels,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import (
    KEY,
    ROTATION,
    decoded,
    encoded,
    keyed,
    rotation_in,
    write_rotation,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import (
    KINDS,
    NO_CERTIFICATE,
    TOKENS,
    Rotation,
    finish_steps,
    nothing_new,
    renewed_by,
    tokens_text,
)

READER = f"{PREFIX}reader"
CERTIFICATES = ("tls.crt", "tls.key", "certificate", "key", "authority")


def contents(
    kept: Mapping[str, str], options: Mapping[str, Any], rotation: Rotation, renewed: Container[str] = ()
) -> dict[str, str]:
    """Each secret by its name; ``renewed`` are generated ones that are to be others than they are.

    Raises ValueError for a name or value that cannot be one.
    """
    given, found = options["given"], {}
    for name in [*given, *options["generated"]]:
        if not re.fullmatch(r"[a-z][a-z0-9_.]*", name):
            raise ValueError(
                f"titanic_secrets_values: '{name}' is no name of a secret. Use lower-case letters, digits and _."
            )
        if name in given:
            value = given[name]
            if not isinstance(value, str) or not value:
                raise ValueError(f"titanic_secrets_values: '{name}' must be a text that is not empty. Quote numbers.")
            if name == TOKENS:
                overlap = options["overlap_seconds"] if "tokens" in rotation.unfinished else None
                value = tokens_text(kept.get(name, ""), value, overlap)
            found[name] = value
        else:
            found[name] = ("" if name in renewed else kept.get(name)) or secrets.token_urlsafe(32)
    recorded = {} if rotation == Rotation() else {ROTATION: json.dumps(rotation.document(), sort_keys=True)}
    return found | {KEY: kept.get(KEY) or secrets.token_urlsafe(32)} | recorded


def begin(kept: Mapping[str, str], options: Mapping[str, Any], rotation: Rotation) -> tuple[Rotation, list[str]]:
    """The rotation with what is asked for begun, and the generated secrets that get new values for that.

    Raises ValueError, naming each secret that is given as it is.
    """
    new = [kind for kind in options["rotate"] if kind not in rotation.unfinished]
    if not new:
        return rotation, []
    given = options["given"]
    problems = nothing_new(new, given, kept)
    certificates = [name for name in CERTIFICATES if name in given]
    if "tls" in new and all(given[name] == kept.get(name) for name in certificates):
        problems.append(NO_CERTIFICATE)
    if problems:
        raise ValueError("\n".join(problems))
    return rotation.begun(new, options["by"]), renewed_by(new)


def start_alone(cluster: KubernetesClient, name: str, thing: Object, initial: Collection[str]) -> bool:
    """Whether a reader's Secret of this name differs from what is wanted only in what a first start needs."""
    found = cluster.get("v1", "Secret", name) if name and initial else None
    kept, wanted = (
        {key: value for key, value in data.items() if key not in initial}
        for data in ((found or {}).get("data", {}), thing["data"])
    )
    return bool(found) and kept == wanted


def of_readers(options: Mapping[str, Any], values: Mapping[str, str]) -> Iterator[tuple[str, Object]]:
    """Each reader and its Secret."""
    for reader, names in options["readers"].items():
        called = names if isinstance(names, Mapping) else dict(zip(names, names, strict=True))
        own = {called_so: values[name] for called_so, name in called.items() if name in values}
        if own:
            own |= options["plain"].get(reader, {})
            yield (
                reader,
                with_managed_labels(
                    {
                        "apiVersion": "v1",
                        "kind": "Secret",
                        "metadata": {"name": f"{reader}-{keyed(values[KEY], own)}", "labels": {READER: reader}},
                        "type": options["types"].get(reader, "Opaque"),
                        "immutable": True,
                        "data": encoded(own),
                    }
                ),
            )


def unused(cluster: KubernetesClient, current: set[str]) -> list[str]:
    """Secrets of readers that no pod has any longer and nobody will start one with."""
    pods = cluster.list("v1", "Pod")
    used = {
        str(volume["secret"]["secretName"])
        for pod in pods
        for volume in pod["spec"].get("volumes", [])
        if "secret" in volume
    }
    ours_ = [thing for thing in cluster.list("v1", "Secret", **LABELS) if READER in thing["metadata"]["labels"]]
    names = [str(thing["metadata"]["name"]) for thing in ours_]
    return [name for name in names if name not in used | current]


def ensure_secrets(cluster: KubernetesClient, options: dict[str, Any], *, check: bool) -> list[str]:
    """Have all of them: names of the secrets that were, or are to be, written. Raises ClusterError, ValueError."""
    found = cluster.get("v1", "Secret", SECRETS)
    kept = decoded(found)
    rotation, renewed = begin(kept, options, rotation_in(found))
    values = contents(kept, options, rotation, renewed)
    before = names_in(found)
    made = {
        reader: thing
        for reader, thing in of_readers(options, values)
        if not start_alone(cluster, before.get(reader, ""), thing, options["initial"].get(reader, []))
    }
    readers = [reader for reader, _ in of_readers(options, values)]
    names = {reader: str(made[reader]["metadata"]["name"]) if reader in made else before[reader] for reader in readers}
    written = [name for name in values if name not in (KEY, ROTATION) and values[name] != kept.get(name)]
    gone = [name for name in kept if name not in values]
    begun = values.get(ROTATION) != kept.get(ROTATION)
    there = all(cluster.get("v1", "Secret", name) for name in names.values())
    if check or not (written or gone or begun or before != names or not there):
        return [*written, *gone] or ([] if before == names and there else sorted(names))
    for thing in made.values():
        cluster.apply(thing)
    annotations = {f"{PREFIX}{reader}": name for reader, name in names.items()}
    metadata = {"name": SECRETS, "annotations": annotations}
    cluster.apply(
        with_managed_labels({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded(values)})
    )
    for name in unused(cluster, {*names.values(), *before.values()}):
        cluster.delete("v1", "Secret", name)
    return [*written, *gone] or sorted(names)


def finish(cluster: KubernetesClient, *, check: bool) -> list[str]:
    """Record that rotations are finished: what was done, in words. Raises ClusterError, ValueError."""
    rotation = rotation_in(cluster.get("v1", "Secret", SECRETS))
    if rotation != rotation.finished() and not check:
        write_rotation(cluster, rotation.finished())
    return finish_steps(rotation)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": KubernetesClient.OPTION | {"required": True},
            "given": {"type": "dict", "default": {}, "no_log": True},
            "generated": {"type": "list", "elements": "str", "default": []},
            "readers": {"type": "dict", "default": {}},
            "plain": {"type": "dict", "default": {}},
            "types": {"type": "dict", "default": {}},
            "objects": {"type": "list", "elements": "dict", "default": []},
            "seconds": {"type": "float", "default": 60},
            "initial": {"type": "dict", "default": {}},
            "rotate": {"type": "list", "elements": "str", "choices": list(KINDS), "default": []},
            "overlap_seconds": {"type": "int", "default": 300},
            "by": {"type": "str", "default": "somebody"},
            "finish": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        with KubernetesClient.of(module.params["cluster"]) as cluster:
            options, check, written = module.params, module.check_mode, []
            if options["finish"]:
                steps = finish(cluster, check=check)
            else:
                written = ensure_secrets(cluster, options, check=check)
                steps = ensure_synced(cluster, options["objects"], options["seconds"], check=check)
    except (ClusterError, ReleaseError, ValueError) as error:
        module.fail_json(msg=str(error))
    lines = [*(f"{name}: a new secret" for name in written), *steps]
    module.exit_json(
        changed=bool(lines),
        written=written,
        steps=steps,
        diff={"before": "", "after": "".join(f"{line}\n" for line in lines)},
    )


if __name__ == "__main__":
    main()
