#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have the objects of one stage of a deployment in the cluster, and wait for those that run something."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_objects
short_description: Keep the objects of a stage
description:
  - Applies all objects of a stage on the server's side, under the field manager C(whitestar.deploy), and removes those
    that the stage made before and that are no longer wanted. Every object is tried out before the first is changed.
  - C(secretName) in an object is the name that M(whitestar.deploy.kubernetes_secrets) knows the Secret by; the Secret
    that stands for it now takes its place.
  - StatefulSets are waited for, and Clusters of CloudNativePG. Pods that will not come are told of by their reason, not
    by a time-out, and a Cluster by what its operator says of it.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.cluster
options:
  stage:
    description: Name of the stage.
    type: str
    required: true
  objects:
    description: The objects, in the order in which they are made.
    type: list
    elements: dict
    required: true
  seconds:
    description: How long each of them may take, in seconds.
    type: float
    default: 180
attributes:
  check_mode:
    description: The cluster itself says what would change (server-side dry run).
    support: full
  diff_mode:
    description: Compares objects; what is in Secrets is left out.
    support: full
"""

EXAMPLES = r"""
- name: Apply the objects
  whitestar.deploy.kubernetes_objects:
    cluster: {namespace: titanic}
    stage: database
    objects: "{{ lookup('ansible.builtin.template', 'kubernetes.yml.j2') | from_yaml_all | list }}"
"""

RETURN = r"""
steps:
  description: What was done, in words.
  returned: success
  type: list
  elements: str
calls:
  description: How many questions the cluster's API was asked.
  returned: success
  type: int
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import (
    Stage,
    difference,
    resolved,
    secret_names,
    with_secret_hash,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.maintenance import selecting
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.readiness import settle
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import SHORTEST_SECRET


def secret_values(objects: list[Object]) -> set[str]:
    """What Secrets among these objects hold, as it is written there; too short a value would blacken ordinary words."""
    parts = [thing.get(part) or {} for thing in objects if thing["kind"] == "Secret" for part in ("data", "stringData")]
    return {str(value) for part in parts for value in part.values() if len(str(value)) >= SHORTEST_SECRET}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": KubernetesClient.OPTION | {"required": True},
            "stage": {"type": "str", "required": True},
            "objects": {"type": "list", "elements": "dict", "required": True},
            "seconds": {"type": "float", "default": 180},
        },
        supports_check_mode=True,
    )
    options = module.params
    # Before ansible-core 2.21 a module's arguments are part of its answer.
    module.no_log_values |= secret_values(options["objects"])
    try:
        with KubernetesClient.of(options["cluster"]) as cluster:
            names = secret_names(cluster)
            objects = selecting(cluster, resolved(options["objects"], names))
            stage = Stage(cluster, options["stage"], [with_secret_hash(cluster, thing, names) for thing in objects])
            changes = stage.changes(check=module.check_mode)
            steps = [str(change) for change in changes]
            if not module.check_mode:
                stage.apply(changes)
                # A pod that was killed comes back by itself, which is no change of ours.
                settle(cluster, stage.objects, options["seconds"])
    except (ClusterError, ReleaseError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(changes), steps=steps, calls=cluster.calls, diff=difference(changes))


if __name__ == "__main__":
    main()
