#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what runs in a namespace, stop it, start it again, or take all of it away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_lifecycle
short_description: Say what runs in a namespace, stop it, start it or remove it
description:
  - With O(state=reported) lists pods, the serving release, the ledger, the lock and the rows. Changes nothing.
  - With O(state=stopped) ends the API's pods, which answer what they have, then the database's. Volumes, secrets,
    releases, the ledger and everything else stay.
  - With O(state=started) has as many pods as before, of the release of the ledger, and waits until they are ready.
    Nothing is built, migrated or configured.
  - With O(state=absent) removes the namespace with all data, secrets and releases, if a deployment has made it, and
    otherwise what deployments have made in it.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.cluster, whitestar.deploy.tls, whitestar.deploy.twins.lifecycle]
options:
  host: {description: Name that the reverse proxy is asked by., type: str}
  seconds: {description: "How long the removal may take, in seconds.", type: float, default: 300}
attributes:
  check_mode: {description: "Says what would be stopped, started or removed.", support: full}
  diff_mode: {description: "Shows what is removed, or the steps.", support: full}
"""

EXAMPLES = r"""
- name: Gather the status
  whitestar.deploy.kubernetes_lifecycle:
    cluster: {namespace: titanic}
    address: 192.0.2.10:80
    probes: {ready: /readyz, rows: "/people?limit=1"}
"""

RETURN = r"""
status: {description: What is there. Empty when nothing is., returned: success, type: dict}
steps: {description: "What was stopped, started or removed, in order.", returned: success, type: list, elements: str}
"""

import time
from http import HTTPStatus
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import Answer, Tls, try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import SECRETS, STAGES, recorded
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.lease import ClusterLock
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.maintenance import maintenance
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import LABELS, object_label
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.ownership import made_by_us
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.pods import leaving, ready, statuses
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import LEDGER, ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import rotation_in
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.stop import start, stop, stopped
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import redacted
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import in_words as lock_in_words
from ansible_collections.whitestar.deploy.plugins.module_utils.release.options import (
    LEDGER_LINES,
    LIFECYCLE,
    STATES,
    lifecycle_result,
)

# What goes of a namespace that others made.
CONTENTS = "what deployments have made in "
# What is made beside the stages' objects, in the order in which it is removed.
OTHERS = (
    ("apps/v1", "Deployment"),
    ("batch/v1", "Job"),
    ("apps/v1", "StatefulSet"),
    ("v1", "Pod"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
)


def report(cluster: KubernetesClient, options: dict[str, Any]) -> dict[str, Any]:
    """What is there, for people: pods, release, ledger, lock, rows. Empty where nothing has been deployed."""
    if cluster.get("v1", "ConfigMap", STAGES) is None and cluster.get("v1", "ConfigMap", LEDGER) is None:
        return {}
    records = ClusterRecords(cluster)
    ledger = records.ledger()
    current = ledger.current()
    pods = cluster.list("v1", "Pod", **LABELS)
    counted, answer = (request(options, path) for path in (options["probes"]["rows"], options["probes"]["ready"]))
    claims = cluster.list("v1", "PersistentVolumeClaim", **LABELS)
    return {
        "url": options["url"] or f"http://{options['address']}",
        "ready": answer is not None and answer.status == 200,
        "stopped": str(stopped(cluster) or "no"),
        "maintenance": str(maintenance(cluster) or "off"),
        "rotation": str(rotation_in(cluster.get("v1", "Secret", SECRETS))),
        "release": current.release if current else "none",
        "version": current.version if current else "none",
        "rows": counted.headers.get("x-total-count", "unknown") if counted else "unknown",
        "pods": {str(pod["metadata"]["name"]): in_words(pod) for pod in pods},
        "volumes": [str(claim["metadata"]["name"]) for claim in claims],
        "lock": lock_in_words(ClusterLock(cluster).holder()),
        "ledger": [str(entry) for entry in ledger.entries[-LEDGER_LINES:]],
        "rollback_to": [entry.release for entry in ledger.eligible()],
    }


def request(options: dict[str, Any], path: str) -> Answer | None:
    """What the reverse proxy answers."""
    return try_request(options["address"], path, tls=Tls.of(options["tls"]), host=options["host"] or "")


def in_words(pod: dict[str, Any]) -> str:
    """A pod in a few words."""
    restarts = sum(int(status.get("restartCount", 0)) for status in statuses(pod))
    again = f", started again {restarts} times" if restarts else ""
    state = "leaving" if leaving(pod) else "ready" if ready(pod) else str(pod.get("status", {}).get("phase")).lower()
    return f"{state}{again}"


def remove(cluster: KubernetesClient, seconds: float) -> bool:
    """Remove everything and wait until it is gone; whether the namespace is, too. Raises ClusterError."""
    remove_objects(cluster)
    mine = remove_namespace(cluster)
    deadline = time.monotonic() + seconds
    while left := still_there(cluster, mine=mine):
        if time.monotonic() > deadline:
            raise ClusterError(f"{left} is still being removed after {seconds:g} s. See what keeps it (finalizers).")
        time.sleep(0.5)
    return mine


def remove_objects(cluster: KubernetesClient) -> None:
    """Remove what deployments have made."""
    for stage, keys in recorded(cluster).items():
        for api_version, kind, name in reversed(keys):
            # The rights of whoever does this go with the namespace, or stay with it.
            if kind != "Namespace" and stage != "deployer":
                cluster.delete(api_version, kind, name)
    for api_version, kind in OTHERS:
        for thing in cluster.list(api_version, kind, **LABELS):
            cluster.delete(api_version, kind, thing["metadata"]["name"])


def is_ours(cluster: KubernetesClient) -> bool:
    """Whether a deployment has made the namespace. Raises ClusterError."""
    space = cluster.get("v1", "Namespace", cluster.namespace)
    return space is not None and made_by_us(space)


def remove_namespace(cluster: KubernetesClient) -> bool:
    """Whether the namespace is one that a deployment has made, which is removed then. Raises ClusterError."""
    mine = is_ours(cluster)
    try:
        if mine:
            cluster.delete("v1", "Namespace", cluster.namespace)
    except ClusterError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        # An administrator made it for us, and may remove it.
        return False
    return mine


def still_there(cluster: KubernetesClient, *, mine: bool) -> str:
    """Something that has not gone yet; empty when all has."""
    if mine:
        return f"namespace {cluster.namespace}" if cluster.get("v1", "Namespace", cluster.namespace) else ""
    for api_version, kind in OTHERS:
        for thing in cluster.list(api_version, kind, **LABELS):
            return object_label(thing)
    return ""


def carry_on(cluster: KubernetesClient, options: dict[str, Any], *, check: bool) -> list[str]:
    """Stop or start what is deployed: what was done, in words. Raises ClusterError, ReleaseError, ValueError."""
    records = ClusterRecords(cluster)
    try:
        if options["state"] == "stopped":
            return stop(cluster, records, options["by"], check=check)
        return start(cluster, records, options["ready_seconds"], check=check)
    except ReleaseError as error:
        # What a pod printed may be part of it.
        raise ReleaseError(redacted(records, str(error))) from error


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=LIFECYCLE
        | {
            "cluster": KubernetesClient.OPTION | {"required": True},
            "host": {"type": "str"},
            "seconds": {"type": "float", "default": 300},
        },
        supports_check_mode=True,
    )
    options = module.params
    absent = options["state"] == "absent"
    try:
        with KubernetesClient.of(options["cluster"]) as cluster:
            steps = carry_on(cluster, options, check=module.check_mode) if options["state"] in STATES[1:3] else []
            status = report(cluster, options)
            if absent and status:
                mine = is_ours(cluster) if module.check_mode else remove(cluster, options["seconds"])
                steps = [f"remove {'' if mine else CONTENTS}the namespace {cluster.namespace}"]
    except (ClusterError, ReleaseError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**lifecycle_result(status, steps, removes=absent and bool(status)))


if __name__ == "__main__":
    main()
