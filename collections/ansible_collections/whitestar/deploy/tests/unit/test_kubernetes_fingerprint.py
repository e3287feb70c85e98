# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan holds while a cluster changes by itself, and no longer when somebody changes what was applied."""

from __future__ import annotations

import json
from typing import Any, cast

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import STAGES
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.fingerprint import reality
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import with_managed_labels
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords


def told(deployment: dict[str, Any], **spec: Any) -> dict[str, str]:
    """The fingerprint of a namespace in which a stage has made this Deployment, which is so now."""
    stages = with_managed_labels({"kind": "ConfigMap", "metadata": {}, "data": {"api": json.dumps([deployment])}})
    live = deployment | {"status": {"replicas": 3}, "spec": deployment["spec"] | spec}

    class Cluster:
        def get(self, _version: str, _kind: str, name: str) -> dict[str, Any] | None:
            return {STAGES: stages, "titanic-api": live}.get(name)

    cluster = cast("Any", Cluster())
    return reality(cluster, ClusterRecords(cluster))


def test_what_a_cluster_changes_by_itself_is_no_difference() -> None:
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "titanic-api"}, "spec": {"a": 1}}
    before = told(deployment)
    assert list(before) == ["the last release in the ledger", "the Deployment titanic-api"]
    assert told(deployment, replicas=3) == before
    assert told(deployment, a=2) != before
