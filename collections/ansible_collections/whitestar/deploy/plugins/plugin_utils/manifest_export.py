# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes to a cluster when Ansible does not: the objects of the roles, and one Job for what the roles do there.

No object waits for another: the Job waits for the database, and a pod that serves is not ready before the Job has
migrated. So a tree can be applied at once, in any order, by anybody, and old pods serve until new ones can.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import yaml
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import stable_hash
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import (
    API,
    HARDENED,
    JOB_RESOURCES,
    READ_MODE,
    SCRATCH,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object, with_managed_labels

# The first line of every file: how one is told that was written here and is no longer wanted.
HEADER = "# Rendered by whitestar.deploy.render_manifests: change the inventory, not this file."
JOB = "titanic-prepare"
TLS_SECRET = "titanic-tls"  # noqa: S105 - a name
HASH_DIGITS = 10
WIDTH = 120
# Old pods still need the settings of their release, if their containers start again. Whoever applies a tree must not
# remove what is no longer in it. Helm, Argo CD and Flux each have a word of their own for that.
KEPT = {
    "helm.sh/resource-policy": "keep",
    "argocd.argoproj.io/sync-options": "Prune=false",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
}


class ExportError(ValueError):
    """What was asked for cannot be rendered; the message names the setting."""


def plain(value: Any) -> Any:
    """A value from Ansible without what Ansible notes on it."""
    return json.loads(json.dumps(value))


def find(objects: Sequence[Object], kind: str) -> Object | None:
    """The one object of a kind that can be there once."""
    return next((thing for thing in objects if thing["kind"] == kind), None)


def secret_keys(readers: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Of what each reader could have, the secrets that there are, by their keys; readers without any are left out.

    What a reader could have is names, or names by keys.
    """
    pairs = {
        reader: wanted.items() if isinstance(wanted, Mapping) else [(name, name) for name in wanted]
        for reader, wanted in readers.items()
    }
    found = {reader: {key: name for key, name in wanted if name in names} for reader, wanted in pairs.items()}
    return {reader: wanted for reader, wanted in found.items() if wanted}


def exported(
    stages: Mapping[str, Sequence[Object]], jobs: Mapping[str, Object], secrets: Sequence[str], replicas: int
) -> dict[str, list[Object]]:
    """The objects of each stage as they are written, with ``prepare`` among the stages.

    ``stages`` are those that roles gave back, by name and in order, ``jobs`` is what :func:`preparation` takes,
    ``secrets`` the names of Secrets. ``replicas`` is how many pods there are where nothing scales them.
    """
    found = {name: [with_managed_labels(thing) for thing in objects] for name, objects in stages.items() if objects}
    everything = [thing for objects in found.values() for thing in objects]
    for thing in everything:
        if thing["kind"] == "ConfigMap":
            thing["metadata"]["annotations"] = thing["metadata"].get("annotations", {}) | KEPT
        if thing["kind"] == "Deployment" and find(everything, "HorizontalPodAutoscaler") is None:
            # Where something scales them, how many there are is its business at each apply.
            thing["spec"] = {"replicas": replicas} | thing["spec"]
    return found | {"prepare": [preparation(jobs, secrets)]}


def preparation(jobs: Mapping[str, Object], secrets: Sequence[str]) -> Object:
    """One Job that does what roles do between database and release, each in a container, one after the other.

    ``jobs`` has ``roles`` (a container that makes database and roles, empty where others do) and the Jobs ``migrate``
    and ``seed``. The name ends with a hash of what it does, since a Job cannot be changed. Done again, it changes
    nothing.
    """
    job = deepcopy(jobs["seed"])
    spec = job["spec"]["template"]["spec"]
    (seed,) = spec["containers"]
    (migrate,) = jobs["migrate"]["spec"]["template"]["spec"]["containers"]
    spec["initContainers"] = [migrate | {"name": "migrate"}]
    spec["containers"] = [seed | {"name": "seed"}]
    if jobs["roles"]:
        (directory,) = (mount["mountPath"] for mount in seed["volumeMounts"] if mount["name"] == "secrets")
        mounts = [
            {"name": "passwords", "mountPath": directory, "readOnly": True},
            # A directory of its own: what is in it is not for the containers that follow.
            {"name": "scratch", "mountPath": SCRATCH, "subPath": "roles"},
        ]
        own = {"resources": JOB_RESOURCES, "securityContext": HARDENED, "volumeMounts": mounts}
        spec["initContainers"].insert(0, jobs["roles"] | own)
        sources = [{"secret": {"name": name}} for name in secrets if name != TLS_SECRET]
        spec["volumes"].append({"name": "passwords", "projected": {"defaultMode": READ_MODE, "sources": sources}})
    spec["restartPolicy"] = "OnFailure"
    # It waits for the database, and for Secrets that somebody else makes, as long as that takes.
    del job["spec"]["activeDeadlineSeconds"]
    job["spec"]["backoffLimit"] = 10
    job["metadata"]["name"] = f"{JOB}-{stable_hash(job['spec'])[:HASH_DIGITS]}"
    return with_managed_labels(job)


def release_of(stages: Mapping[str, Sequence[Object]]) -> str:
    """The release that serves with these objects."""
    (settings,) = [thing for thing in stages["api"] if thing["kind"] == "ConfigMap"]
    return str(settings["metadata"]["name"]).removeprefix(f"{API}-")


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: lists indented, long texts as blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def as_yaml(value: Any) -> str:
    """A value as YAML, its keys in the order that they have."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True))


def as_document(*values: Any) -> str:
    """A file of YAML documents."""
    return f"{HEADER}\n" + "---\n".join(as_yaml(value) for value in values)
