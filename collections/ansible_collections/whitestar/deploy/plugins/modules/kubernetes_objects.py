#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan the objects of one stage of a deployment, and wait for them once M(kubernetes.core.k8s) has applied them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_objects
short_description: Plan the objects of a stage, and wait for them
description:
  - Works beside M(kubernetes.core.k8s), which applies the objects of a stage under the field manager
    C(whitestar.deploy) and removes those that are no longer wanted.
  - With O(state=planned) it says which these are. Every object has a dry run on the server's side before one is
    changed, and one that belongs to somebody else is refused. What is to be made is written down first, in the
    namespace, which is made for that; what lies in a namespace that was not there has its dry run after that.
  - C(secretName) in an object is the name that M(whitestar.deploy.kubernetes_secrets) knows the Secret by; the Secret
    that stands for it now takes its place.
  - With O(state=accepted) the objects of several stages have a dry run, before the first stage changes anything;
    objects that were applied like that before are left out.
  - With O(state=ready) it writes down what there is. A StatefulSet whose volumes are to be larger is made anew.
    StatefulSets are waited for, and Clusters of CloudNativePG. Pods that will not come are told of by their reason, not
    by a time-out, and a Cluster by what its operator says of it.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.cluster
options:
  stage: {description: Name of the stage., type: str}
  objects:
    description: The objects, in the order in which they are made. None of them is a Secret.
    type: list
    elements: dict
  stages: {description: "The objects of each stage, by its name, for O(state=accepted).", type: dict}
  state:
    description: Whether all stages are to have a dry run, one is to be planned, or what was planned has been applied.
    type: str
    choices: [accepted, planned, ready]
    default: planned
  seconds: {description: "How long each of them may take, in seconds.", type: float, default: 180}
attributes:
  check_mode: {description: The cluster itself says what would change (server-side dry run)., support: full}
  diff_mode: {description: Compares objects., support: full}
"""

EXAMPLES = r"""
- name: Plan the objects
  whitestar.deploy.kubernetes_objects:
    cluster: {namespace: titanic}
    stage: database
    objects: "{{ database_objects }}"
  register: database_planned

- name: Apply the objects
  kubernetes.core.k8s:
    namespace: titanic
    apply: true
    server_side_apply: {field_manager: whitestar.deploy, force_conflicts: true}
    resource_definition: "{{ database_planned.apply }}"
  when: database_planned.apply | length > 0

- name: Wait for them
  whitestar.deploy.kubernetes_objects:
    cluster: {namespace: titanic}
    stage: database
    objects: "{{ database_objects }}"
    state: ready
  when: database_planned.pending
"""

RETURN = r"""
steps: {description: "What was planned, in words.", returned: success, type: list, elements: str}
apply:
  description: The objects that are to be applied, as they are to be applied; none in check mode.
  returned: when state is planned
  type: list
  elements: dict
remove:
  description: What names the objects that are to be removed; none in check mode.
  returned: when state is planned
  type: list
  elements: dict
pending:
  description: Whether O(state=ready) has something to do; false in check mode.
  returned: when state is planned
  type: bool
calls: {description: How many questions the cluster's API was asked., returned: success, type: int}
"""


from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import (
    Stage,
    difference,
    resolved,
    secret_names,
    to_apply,
    to_remove,
    with_secret_hash,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.maintenance import selecting
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object, object_label
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.readiness import settle, settled
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError


def wanted_stage(cluster: KubernetesClient, name: str, objects: list[Object]) -> Stage:
    """The stage, its objects as they are wanted now: Secrets by their names, the Service as a maintenance has it."""
    names = secret_names(cluster)
    return Stage(
        cluster,
        name,
        [with_secret_hash(cluster, thing, names) for thing in selecting(cluster, resolved(objects, names))],
    )


def try_out(stages: list[Stage]) -> dict[str, Any]:
    """Have the cluster say that it would take all of these objects. Raises ClusterError, naming the one it refuses."""
    cluster = stages[0].cluster
    there = cluster.get("v1", "Namespace", cluster.namespace) is not None
    for stage in stages:
        stage.try_out(check=not there)
    return {"changed": False, "steps": []}


def plan(stage: Stage, *, check: bool) -> dict[str, Any]:
    """What is to be done, begun unless ``check``. Raises ClusterError."""
    changes = stage.changes(check=check)
    answer: dict[str, Any] = {
        "changed": bool(changes),
        "steps": [str(change) for change in changes],
        "diff": difference(changes),
    }
    if check:
        return answer | {"apply": [], "remove": [], "pending": False}
    stage.begin(changes)
    if any(change.wanted["kind"] == "Namespace" and not change.before for change in changes):
        # Before there was a namespace nothing that lies in one could be tried.
        changes = stage.changes(check=False)
    # A pod that was killed comes back by itself, which is no change of ours.
    pending = answer["changed"] or not settled(stage.cluster, stage.objects)
    return answer | {"apply": to_apply(changes), "remove": to_remove(changes), "pending": pending}


def finish(stage: Stage, seconds: float, *, check: bool) -> dict[str, Any]:
    """What is left to be done once objects are applied. Raises ClusterError, ReleaseError."""
    if check:
        return {"changed": False, "steps": []}
    changed = stage.end()
    settle(stage.cluster, stage.objects, seconds)
    return {"changed": changed, "steps": []}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": KubernetesClient.OPTION | {"required": True},
            "stage": {"type": "str"},
            "objects": {"type": "list", "elements": "dict"},
            "stages": {"type": "dict"},
            "state": {"type": "str", "choices": ["accepted", "planned", "ready"], "default": "planned"},
            "seconds": {"type": "float", "default": 180},
        },
        required_if=[
            ("state", "accepted", ["stages"]),
            ("state", "planned", ["stage", "objects"]),
            ("state", "ready", ["stage", "objects"]),
        ],
        supports_check_mode=True,
    )
    options = module.params
    stages = options["stages"] if options["state"] == "accepted" else {options["stage"]: options["objects"]}
    given = [thing for objects in stages.values() for thing in objects]
    if held := [object_label(thing) for thing in given if thing.get("kind") == "Secret"]:
        # It would be given back, and shown.
        module.fail_json(msg=f"objects: {held[0]} is a secret. Have kubernetes_secrets keep it.")
    try:
        with KubernetesClient.of(options["cluster"]) as cluster:
            wanted = [wanted_stage(cluster, name, objects) for name, objects in stages.items()]
            if options["state"] == "accepted":
                answer = try_out(wanted)
            elif options["state"] == "planned":
                answer = plan(wanted[0], check=module.check_mode)
            else:
                answer = finish(wanted[0], options["seconds"], check=module.check_mode)
    except (ClusterError, ReleaseError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**answer, calls=cluster.calls)


if __name__ == "__main__":
    main()
