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
  - A generated secret is made once and never changed again.
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
    required: true
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
  description: What was done about those that come from a store, in words.
  returned: success
  type: list
  elements: str
"""

import base64
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import PREFIX, SECRETS, secret_names
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.external_secrets import ensure_synced
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import (
    LABELS,
    Object,
    with_managed_labels,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import KEY, decoded, keyed
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError

READER = f"{PREFIX}reader"


def contents(kept: Mapping[str, str], given: Mapping[str, object], generated: list[str]) -> dict[str, str]:
    """Each secret by its name. Raises ValueError for a name or value that cannot be one."""
    found: dict[str, str] = {}
    for name in [*given, *generated]:
        if not re.fullmatch(r"[a-z][a-z0-9_.]*", name):
            raise ValueError(
                f"titanic_secrets_values: '{name}' is no name of a secret. Use lower-case letters, digits and _."
            )
        if name in given:
            value = given[name]
            if not isinstance(value, str) or not value:
                raise ValueError(f"titanic_secrets_values: '{name}' must be a text that is not empty. Quote numbers.")
            found[name] = value
        else:
            found[name] = kept.get(name) or secrets.token_urlsafe(32)
    return found | {KEY: kept.get(KEY) or secrets.token_urlsafe(32)}


def encoded(values: Mapping[str, str]) -> dict[str, str]:
    """The ``data`` of a Secret."""
    return {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}


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
    values = contents(kept, options["given"], options["generated"])
    made = dict(of_readers(options, values))
    names = {reader: str(thing["metadata"]["name"]) for reader, thing in made.items()}
    written = [name for name in values if name != KEY and values[name] != kept.get(name)]
    gone = [name for name in kept if name not in values]
    before = secret_names(cluster) if found else {}
    there = all(cluster.get("v1", "Secret", name) for name in names.values())
    if check or (not written and not gone and before == names and there):
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


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": KubernetesClient.OPTION | {"required": True},
            "given": {"type": "dict", "default": {}, "no_log": True},
            "generated": {"type": "list", "elements": "str", "default": []},
            "readers": {"type": "dict", "required": True},
            "plain": {"type": "dict", "default": {}},
            "types": {"type": "dict", "default": {}},
            "objects": {"type": "list", "elements": "dict", "default": []},
            "seconds": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        with KubernetesClient.of(module.params["cluster"]) as cluster:
            written = ensure_secrets(cluster, module.params, check=module.check_mode)
            options = module.params
            steps = ensure_synced(cluster, options["objects"], options["seconds"], check=module.check_mode)
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
