#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have everything that users ask of a namespace answered with a message, or by the API again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_maintenance
short_description: Begin or end the maintenance of a namespace
description:
  - With O(enabled=true) pods are started that answer every request with 503, C(Retry-After) and a message, as a problem
    document (RFC 9457) or, for browsers, as a page; once they are ready the API's Service selects them. The API's pods
    run on and finish what they have.
  - With O(enabled=false) the Service selects the API's pods again. A deployment meanwhile does not end it.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.cluster, whitestar.deploy.twins.maintenance]
options:
  objects:
    description: What answers meanwhile. It reads the ConfigMap C(titanic-maintenance), which is made.
    type: list
    elements: dict
    required: true
  seconds: {description: "How long the pods may take to start, in seconds.", type: float, default: 120}
attributes:
  check_mode: {description: "Says whether it would begin, end or change.", support: full}
  diff_mode: {description: Compares the messages., support: full}
"""

EXAMPLES = r"""
- name: Start the maintenance
  whitestar.deploy.kubernetes_maintenance:
    cluster: {namespace: titanic}
    enabled: true
    message: The database moves; back at 14:00 UTC.
    objects: "{{ lookup('ansible.builtin.template', 'kubernetes.yml.j2') | from_yaml_all | list }}"
    by: alice@laptop
"""

RETURN = r"""
maintenance:
  description: Who began it, when, with which message; empty when there is none.
  returned: success
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import Stage
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.maintenance import (
    NAME,
    SELECTED,
    maintenance,
    select,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import LEAVE_SECONDS, labels
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.pods import PodWaiter, ready
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.maintenance import Maintenance, result, wanted
from ansible_collections.whitestar.deploy.plugins.module_utils.release.options import MAINTENANCE

STAGE = "maintenance"


def words(told: Maintenance) -> Object:
    """What is said meanwhile, as the pods find it."""
    data = {name: content.decode() for name, content in told.files().items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": data}


def begin(cluster: KubernetesClient, objects: list[Object], told: Maintenance, seconds: float) -> None:
    """Have the message answer everything. Raises ClusterError, and ReleaseError if its pods do not come."""
    stage = Stage(cluster, STAGE, [words(told), *objects])
    stage.apply(stage.changes(check=False))
    watch = PodWaiter(cluster, labels(SELECTED[True]), restarts=1)
    try:
        watch.until(lambda: any(ready(pod) for pod in watch.pods()), seconds)
    except ReleaseError as error:
        end(cluster)
        raise ReleaseError(
            f"the pods that are to answer did not become ready, and nothing was changed: {error}"
        ) from error
    select(cluster, maintained=True)
    # Whatever is in front hears of it within that time.
    time.sleep(LEAVE_SECONDS)


def end(cluster: KubernetesClient) -> None:
    """Have the API answer again."""
    select(cluster, maintained=False)
    stage = Stage(cluster, STAGE, [])
    stage.apply(stage.changes(check=False))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=MAINTENANCE
        | {
            "cluster": KubernetesClient.OPTION | {"required": True},
            "objects": {"type": "list", "elements": "dict", "required": True},
            "seconds": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        with KubernetesClient.of(options["cluster"]) as cluster:
            if ClusterRecords(cluster).ledger().current() is None:
                where = f"namespace {cluster.namespace}"
                module.fail_json(msg=f"nothing is deployed in {where}. Run the whole site first.")
            now = maintenance(cluster)
            then = wanted(options, now)
            if not module.check_mode:
                if then and then != now:
                    begin(cluster, options["objects"], then, options["seconds"])
                elif then:
                    # One that an earlier run may not have seen through.
                    select(cluster, maintained=True)
                elif now:
                    end(cluster)
    except (ClusterError, ReleaseError, ValueError) as error:
        module.fail_json(msg=f"the reverse proxy's maintenance: {error}")
    module.exit_json(**result(now, then))


if __name__ == "__main__":
    main()
