# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy lock of a namespace: a Lease, which is there while a run is at work."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object, with_managed_labels
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import LockedError, Owner

API, KIND, NAME = "coordination.k8s.io/v1", "Lease", "titanic-deploy"
OWNER = "whitestar.deploy/owner"


class ClusterLock:
    """The lock of the cluster's namespace."""

    def __init__(self, cluster: KubernetesClient) -> None:
        self.cluster = cluster

    def holder(self) -> Owner | None:
        """Who holds it, alive or not. Raises ValueError for a Lease that is none of ours."""
        found = self.cluster.get(API, KIND, NAME)
        return _owner(found) if found else None

    def acquire(self, owner: Owner, lease_seconds: float) -> Owner | None:
        """Take or renew the lock for ``owner``. Raises LockedError, ClusterError.

        Returns the dead owner that it was taken from, if any.
        """
        now = time.time()
        found = self.cluster.get(API, KIND, NAME)
        holder = _owner(found) if found else None
        if holder and not holder.same_run(owner) and not holder.gone(now):
            raise LockedError.of(holder, now)
        wanted = _lease(Owner(owner.host, owner.user, owner.pid, owner.started, now, now + lease_seconds))
        try:
            if found:
                wanted["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
                self.cluster.replace(wanted)
            else:
                self.cluster.create(wanted)
        except ClusterError as error:
            # Somebody was quicker.
            if error.status == HTTPStatus.CONFLICT and (winner := self.holder()):
                raise LockedError.of(winner, now) from error
            raise
        return holder if holder and not holder.same_run(owner) else None

    def release(self, owner: Owner) -> bool:
        """Give the lock back if ``owner`` has it; whether it had. Raises ClusterError."""
        found = self.cluster.get(API, KIND, NAME)
        if found is None or not _owner(found).same_run(owner):
            return False
        try:
            self.cluster.delete(API, KIND, NAME, version=found["metadata"]["resourceVersion"])
        except ClusterError as error:
            # Its lease had ended, and somebody has just taken it over.
            if error.status == HTTPStatus.CONFLICT:
                return False
            raise
        return True


def _lease(owner: Owner) -> Object:
    since = datetime.fromtimestamp(owner.since, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return with_managed_labels(
        {
            "apiVersion": API,
            "kind": KIND,
            "metadata": {"name": NAME, "annotations": {OWNER: json.dumps(asdict(owner))}},
            "spec": {
                "holderIdentity": f"{owner.user}@{owner.host}",
                "leaseDurationSeconds": max(1, int(owner.until - owner.since)),
                "acquireTime": since,
                "renewTime": since,
            },
        }
    )


def _owner(lease: Object) -> Owner:
    try:
        return Owner(**json.loads(lease["metadata"]["annotations"][OWNER]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Lease {NAME} is not a lock that this collection reads ({error}). Delete it.") from error
