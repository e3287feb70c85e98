#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Acquire and release the deploy lock of a namespace, once the cluster has been found fit for the run.

Why check and lock are one module: see host_lock.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_lock
short_description: Check a cluster and acquire or release the deploy lock
description:
  - With O(state=present) refuses a cluster that a deployment would fail on later, acquires the deploy lock (a Lease),
    and reports what serves there now. With O(state=absent) releases the lock.
  - One run at a time may change a namespace. A second one is refused at once and told who the owner is. The lock of a
    run that has died is taken over, at once on the same machine, after its lease elsewhere.
  - A namespace that is missing is made for the lock. Never reports a change, so that a run which changes nothing else
    says so.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.cluster, whitestar.deploy.twins.lock]
options:
  adopt: {description: Whether a namespace that somebody else made may be deployed to., type: bool, default: false}
  required_resources:
    description: What the deployment rests on and the cluster must have.
    type: list
    elements: dict
    default: []
    suboptions:
      api_version: {description: Group and version of the kind., type: str, required: true}
      kind: {description: The kind., type: str, required: true}
      name: {description: An object of that kind which must be there. Any will do without it., type: str}
      default:
        description: An annotation that one of the objects must have as C("true"), where none is named.
        type: str
      variable: {description: The variable that asks for it., type: str, required: true}
      remedy: {description: What to do where it is missing., type: str, required: true}
  volume:
    description: >-
      What the volumes of the database are to be, so that a change which they do not allow is refused before anything is
      touched. Nothing is compared where it is left out, or where there is no database yet.
    type: dict
    suboptions:
      size: {description: "Size of each, as a quantity.", type: str, required: true}
      storage_class: {description: Their StorageClass; that which they have if it is empty., type: str}
  overlays:
    description: >-
      What settings lay over objects that a stage or a release has made. The cluster is asked whether it would take it.
    type: list
    elements: dict
    default: []
    suboptions:
      variable: {description: The variable that sets it., type: str, required: true}
      stage:
        description: The stage that makes the objects; those of the release count as C(api).
        type: str
        required: true
      over: {description: "What is laid over the objects, by kind.", type: dict, required: true}
attributes:
  check_mode: {description: The cluster is checked and the lock is left alone., support: full}
  diff_mode: {description: There is nothing to compare., support: none}
"""

EXAMPLES = r"""
- name: Run preflight checks and acquire the deploy lock
  whitestar.deploy.kubernetes_lock:
    cluster: {namespace: titanic}
    state: present
    owner: "{{ 'run' | whitestar.deploy.run_identity }}"
"""

RETURN = r"""
reality:
  description: >-
    What there is in the namespace, part by part, each with what tells it from another; empty unless O(looks).
  returned: when O(state=present)
  type: dict
unfinished:
  description: Kinds of secrets whose rotation is half done.
  returned: when O(state=present)
  type: list
  elements: str
live:
  description: The release that serves, as the ledger has it; empty when there is none.
  returned: when O(state=present)
  type: dict
live_image:
  description: The image of that release; empty when there is none.
  returned: when O(state=present)
  type: str
rollback_to:
  description: The release that a rollback would go back to if the schema allows it; empty when there is none.
  returned: when O(state=present)
  type: str
"""

from http import HTTPStatus
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import SECRETS, recorded
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.fingerprint import reality
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.lease import ClusterLock
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import with_managed_labels
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.preflight import problems, unreachable
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import rotation_in
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import NOTHING_TO_GO_ON_FROM
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import LockedError, Owner
from ansible_collections.whitestar.deploy.plugins.module_utils.release.options import LOCK


def acquire(module: AnsibleModule, cluster: KubernetesClient, owner: Owner) -> dict[str, Any]:
    """Check, lock, look. Raises LockedError, ClusterError, ValueError; fails the module with every problem found."""
    options = module.params
    if found := problems(cluster, options):
        module.fail_json(msg="\n".join(found), problems=found)
    if options["continues"] and not recorded(cluster):
        module.fail_json(msg=NOTHING_TO_GO_ON_FROM)
    there = namespace(cluster, make=options["deploys"] and not module.check_mode)
    if there and not module.check_mode:
        dead = ClusterLock(cluster).acquire(owner, options["lease_seconds"])
        if dead:
            module.warn(f"took the deploy lock over from {dead}, which has ended without giving it back")
    records = ClusterRecords(cluster)
    ledger = records.ledger()
    current = ledger.current()
    images = [
        container["image"]
        for thing in (records.objects(current.release) if current else [])
        if thing["kind"] == "Deployment"
        for container in thing["spec"]["template"]["spec"]["containers"]
    ]
    return {
        "reality": reality(cluster, records) if options["looks"] else {},
        "unfinished": list(rotation_in(cluster.get("v1", "Secret", SECRETS)).unfinished) if there else [],
        "live": vars(current) if current else {},
        "live_image": images[0] if images else "",
        "rollback_to": ledger.rollback_to(),
    }


def namespace(cluster: KubernetesClient, *, make: bool) -> bool:
    """Whether there is one, now. Raises ClusterError if it may not be made, or is being removed."""
    try:
        found = cluster.get("v1", "Namespace", cluster.namespace)
    except ClusterError as error:
        if error.status == HTTPStatus.FORBIDDEN:
            # Who may work in it need not be allowed to look at it.
            return True
        raise
    if found and found.get("status", {}).get("phase") == "Terminating":
        what = f"titanic_project: namespace {cluster.namespace} is being removed. Wait for that."
        raise ClusterError(what, HTTPStatus.CONFLICT)
    if found is None and make:
        metadata = {"name": cluster.namespace}
        cluster.create(with_managed_labels({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
        return True
    return found is not None


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec=LOCK
        | {
            "cluster": KubernetesClient.OPTION | {"required": True},
            "adopt": {"type": "bool", "default": False},
            "volume": {"type": "dict", "options": {"size": text, "storage_class": {"type": "str"}}},
            "overlays": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "variable": text,
                    "stage": text,
                    "over": {"type": "dict", "required": True},
                },
            },
            "required_resources": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "api_version": text,
                    "kind": text,
                    "name": {"type": "str"},
                    "default": {"type": "str"},
                    "variable": text,
                    "remedy": text,
                },
            },
        },
        supports_check_mode=True,
    )
    owner = Owner(**module.params["owner"])
    facts: dict[str, Any] = {}
    try:
        with KubernetesClient.of(module.params["cluster"]) as cluster:
            if module.params["state"] == "present":
                facts = acquire(module, cluster, owner)
            elif not module.check_mode:
                ClusterLock(cluster).release(owner)
    except ClusterError as error:
        module.fail_json(msg=str(error) if error.status else unreachable(error))
    except (LockedError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
