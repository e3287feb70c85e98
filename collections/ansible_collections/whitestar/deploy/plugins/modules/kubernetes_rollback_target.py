#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choose the recorded release of a cluster to go back to, or refuse before anything is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_rollback_target
short_description: Choose the release of a cluster to go back to
description:
  - Chooses the release before the one that serves, or the one that is named, from the ledger. Asks the live database
    whether its schema can serve it, by a Job of the release that serves. Changes nothing.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.cluster, whitestar.deploy.twins.rollback_target]
attributes:
  check_mode: {description: The ledger alone is looked at; the database is not asked., support: partial}
  diff_mode: {description: There is nothing to compare., support: none}
"""

EXAMPLES = r"""
- name: Select the release
  whitestar.deploy.kubernetes_rollback_target:
    cluster: {namespace: titanic}
  register: target
"""

RETURN = r"""
entry: {description: The ledger entry to go back to., returned: success, type: dict}
serving: {description: The release that serves now., returned: success, type: str}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.jobs import Command, job_of
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import with_current_secrets
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import (
    Entry,
    LiveSchema,
    RollbackRefusedError,
)

CHECK_SECONDS = 60


def live_schema(cluster: KubernetesClient, records: ClusterRecords, current: Entry | None) -> LiveSchema:
    """The live schema, as the serving release reads it. Raises RollbackRefusedError if the database does not say."""
    objects, _ = with_current_secrets(cluster, records.objects(current.release) if current else [])
    command = Command(cluster, "check")
    try:
        _, said, complaint = command.run(job_of(objects, ["check"]), "", None, CHECK_SECONDS)
    except ReleaseError as error:
        said, complaint = None, str(error)
    for job in command.jobs():
        cluster.delete("batch/v1", "Job", job["metadata"]["name"])
    return LiveSchema.of_check(said, complaint)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": KubernetesClient.OPTION | {"required": True},
            "release": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    wanted = module.params["release"]
    result: dict[str, Any] = {}
    try:
        with KubernetesClient.of(module.params["cluster"]) as cluster:
            records = ClusterRecords(cluster)
            ledger = records.ledger()
            entry, current = ledger.rollback_target(wanted, LiveSchema()), ledger.current()
            if not module.check_mode:
                entry = ledger.rollback_target(wanted, live_schema(cluster, records, current))
            result = {"entry": vars(entry), "serving": current.release if current else ""}
    except (RollbackRefusedError, ClusterError, ValueError) as error:
        module.fail_json(msg=f"rollback refused, nothing was touched: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
