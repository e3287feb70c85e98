# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells one state of a namespace from another, part by part."""

from __future__ import annotations

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import stable_hash
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import recorded
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object, without_server_fields
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords


def reality(cluster: KubernetesClient, records: ClusterRecords) -> dict[str, str]:
    """What there is of ours, part by part, so that a plan can tell whether anything has moved since it was made."""
    entries = records.ledger().entries
    found = {"the last release in the ledger": str(entries[-1]) if entries else "none"}
    for key in (key for keys in recorded(cluster).values() for key in keys):
        thing = cluster.get(*key)
        found[f"the {key[1]} {key[2]}"] = stable_hash(_settled(thing)) if thing else "none"
    return found


def _settled(thing: Object) -> Object:
    """An object without what the cluster changes in it by itself."""
    kept = without_server_fields(thing)
    kept["metadata"] = kept["metadata"] | {"annotations": {}}
    if thing["kind"] == "Deployment":
        kept["spec"] = kept["spec"] | {"replicas": None}
    return kept
