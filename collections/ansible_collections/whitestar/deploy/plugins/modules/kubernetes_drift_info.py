#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what differs in a namespace from what was applied there, by path, and who did it when."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_drift_info
short_description: Say what differs in a namespace from what was applied
description:
  - Compares the objects of every stage and of the release that serves with those that are there. The cluster itself
    says what it would make of what was applied (server-side dry run), and its managed fields tell who has changed a
    field, and when. Who removes a field or an object leaves no name.
  - Fields that others have added are told of outside C(metadata) and C(status), such as a container or the mark of
    C(kubectl rollout restart). The number of pods is an autoscaler's within its bounds.
  - Compares the attributes of the database's two roles, who owns what, grants, the schema's revision and what was
    seeded. What users do to rows is no part of that.
  - Of Secrets only names are told.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.cluster
options:
  database:
    description: The database that the deployment runs itself. Without it none is looked at.
    type: dict
    suboptions:
      database: {description: Name of the database., type: str, required: true}
      owner: {description: Role that owns it and migrates., type: str, required: true}
      user: {description: Role that serves., type: str, required: true}
      labels: {description: Labels of the pod that it is written to in., type: dict, required: true}
      container: {description: The container in it., type: str, required: true}
attributes:
  check_mode:
    description: It changes nothing in any mode. The dry run needs the right to change what was applied.
    support: full
  diff_mode: {description: There is nothing that it changes., support: none}
"""

EXAMPLES = r"""
- name: Gather the differences
  whitestar.deploy.kubernetes_drift_info:
    cluster: {namespace: titanic}
"""

RETURN = r"""
differences:
  description: What differs.
  returned: success
  type: list
  elements: dict
  contains:
    what: {description: The object or the part of the database., type: str}
    path: {description: The field; empty for all of it., type: str}
    applied: {description: What was applied; none where something was added., type: raw}
    live: {description: What is there; none where something is gone., type: raw}
    said: {description: "What is said in the place of values that may not be told, or are none.", type: str}
    by: {description: Who did it; empty if nothing knows., type: str}
    at: {description: When; empty if nothing knows., type: str}
    text: {description: All of that in one line., type: str}
said: {description: "All of that for people, in lines.", returned: success, type: list, elements: str}
unknown: {description: "What could not be compared, and why.", returned: success, type: list, elements: str}
calls: {description: How many questions the cluster's API was asked., returned: success, type: int}
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import Difference
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.drift import objects_drift
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.jobs import Command
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.lease import ClusterLock
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import LABELS
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.pods import leaving, ready
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.psql import PodServer
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import decoded, rotation_of
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.drift import database_drift, untold
from ansible_collections.whitestar.deploy.plugins.module_utils.release.drift import summary, told
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import redacted
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import PASSWORD

OWNER = "database_owner_password"


class KnownRecords(ClusterRecords):
    """The same, with what is in every Secret of ours, since the one with all of them may have been changed."""

    def secrets(self) -> Iterator[tuple[str, str]]:
        """Every secret that is or was one, by its name; the collected ones last."""
        for found in self.cluster.list("v1", "Secret", **LABELS):
            yield from decoded(found).items()
        yield from super().secrets()


def in_database(
    cluster: KubernetesClient, records: ClusterRecords, options: Mapping[str, Any]
) -> tuple[list[Difference], list[str]]:
    """What differs in the database, and what could not be compared. Raises ClusterError."""
    pods = [pod for pod in cluster.list("v1", "Pod", **options["labels"]) if ready(pod) and not leaving(pod)]
    if not pods:
        return [Difference(f"database {options['database']}", said="does not run: its pod is not ready")], []
    kept = dict(records.secrets())
    rotation = rotation_of(kept)
    roles = {options["owner"]: OWNER, f"{options['user']}{rotation.wanted}": PASSWORD}
    passwords = {role: kept[name] for role, name in roles.items() if name in kept}
    logins, retired = ([f"{options['user']}{login}" for login in some] for some in (rotation.logins, rotation.retired))
    answers = {name: Command(cluster, name).last_answer() for name in ("migrate", "seed")}
    server = PodServer(cluster, str(pods[0]["metadata"]["name"]), options["container"])
    found = database_drift(server, options, passwords, answers, logins, retired)
    return [*rotation.differences(), *found], untold(answers)


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "cluster": KubernetesClient.OPTION | {"required": True},
            "database": {
                "type": "dict",
                "options": {
                    "database": text,
                    "owner": text,
                    "user": text,
                    "labels": {"type": "dict", "required": True},
                    "container": text,
                },
            },
        },
        supports_check_mode=True,
    )
    unknown: list[str] = []
    try:
        with KubernetesClient.of(module.params["cluster"]) as cluster:
            records = KnownRecords(cluster)
            if holder := ClusterLock(cluster).holder():
                module.warn(f"a run is at work, or was cut off: what it changes may differ ({holder})")
            try:
                found = list(objects_drift(cluster, records))
                nothing = [each.what for each in found] == [f"namespace {cluster.namespace}"]
                if module.params["database"] and not nothing:
                    differing, unknown = in_database(cluster, records, module.params["database"])
                    found += differing
            except ClusterError as error:
                raise ClusterError(redacted(records, str(error)), error.status) from error
            differences = told(records, found)
    except (ClusterError, ValueError) as error:
        module.fail_json(msg=str(error))
    said = summary(differences, unknown)
    module.exit_json(changed=False, differences=differences, unknown=unknown, said=said, calls=cluster.calls)


if __name__ == "__main__":
    main()
