#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a release serve on a cluster without a dropped request, and record it in the ledger."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_release
short_description: Roll a release out and record it
description:
  - Starts one pod of the release beside those that serve and asks it for what users will ask. Only then the Deployment
    is changed, and its rollout watched to the end.
  - A release that does not get ready gets no traffic, is recorded as failed with the reason, and the old one serves on.
    One that fails afterwards is replaced by the ledger's last good one.
  - A rollout that was cut off is brought to its end by the next run.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.cluster, whitestar.deploy.twins.release]
options:
  objects:
    description: The release's objects, a Deployment and the ConfigMap with its settings.
    type: list
    elements: dict
  probes:
    description: Beside O(restore), the probes of a workload, since none is recorded. The release is asked for C(smoke).
    type: dict
  replicas: {description: How many pods there are at least., type: int, default: 2}
  max_replicas:
    description: How many pods there are at most. Between the two their number is left alone.
    type: int
    default: 5
attributes:
  check_mode: {description: The cluster itself says what would change (server-side dry run)., support: full}
  diff_mode: {description: Compares the objects., support: full}
"""

EXAMPLES = r"""
- name: Deploy the release
  whitestar.deploy.kubernetes_release:
    cluster: {namespace: titanic}
    objects: "{{ lookup('ansible.builtin.template', 'release.yml.j2') | from_yaml_all | list }}"
    workload: "{{ settings | whitestar.deploy.workload }}"
    by: alice@laptop
    why: deploy
"""

RETURN = r"""
release: {description: The release that serves., returned: success, type: str}
entry: {description: Its entry in the ledger., returned: success, type: dict}
action:
  description: >-
    What was done, or would be: none, awaited (its pods were not all ready, as while an autoscaler adds one), restarted
    (somebody had changed the objects, or its pods failed before), resumed (a rollout was cut off), deployed.
  returned: success
  type: str
pruned: {description: What was removed because no rollback needs it., returned: success, type: list, elements: str}
calls: {description: How many questions the cluster's API was asked., returned: success, type: int}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import Change, difference
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import (
    LABELS,
    Object,
    without_server_fields,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rollout import Rollout, container, prune
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import (
    reason_of,
    redacted,
    write_failure_report,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.http_checks import Checks
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Entry, Ledger
from ansible_collections.whitestar.deploy.plugins.module_utils.release.options import RELEASE
from ansible_collections.whitestar.deploy.plugins.module_utils.release.smoke_test import Analysis


class Deployment:
    """One request to make a release serve."""

    def __init__(
        self, cluster: KubernetesClient, records: ClusterRecords, options: dict[str, Any], *, check: bool
    ) -> None:
        self.cluster = cluster
        self.records = records
        self.options = options
        self.ledger: Ledger = records.ledger()
        self.restores: int | None = options["restore"]
        self.objects: list[Object] = options["objects"] or self._recorded(self.restores)
        self.probes = options["probes"] or options["workload"]["probes"]
        self.rollout = self._rollout(self.objects)
        self.release = self.rollout.release
        if self.restores is None:
            self.rollout.checks = Checks.of(options["workload"], options["reverse_proxy"])
        self.changes: list[Change] = self.rollout.changes(check=check)

    def _rollout(self, objects: list[Object]) -> Rollout:
        return Rollout(self.cluster, objects, (self.options["replicas"], self.options["max_replicas"]))

    def _recorded(self, number: int | None) -> list[Object]:
        entry = next((entry for entry in self.ledger.entries if entry.number == number), None)
        found = self.records.objects(entry.release) if entry else []
        if not found:
            name = entry.release if entry else "of an unknown entry"
            raise ReleaseError(f"release {name} is recorded, but its objects are gone. Choose another release.")
        return found

    def plan(self) -> str:
        """What has to be done: none, awaited, restarted, resumed (a rollout was cut off), deployed."""
        current = self.ledger.current()
        recorded = current is not None and current.release == self.release
        if self.changes:
            return "restarted" if recorded and self.rollout.serving() in (self.release, "") else "deployed"
        if not recorded:
            return "resumed"
        if self.rollout.complete():
            return "none"
        return "restarted" if self.ledger.earlier_failure(self.release) else "awaited"

    def apply(self, plan: str) -> tuple[dict[str, Any], list[str]]:
        """Do it and record it: the ledger's entry, and what was pruned. Raises ReleaseError, ClusterError."""
        current = self.ledger.current()
        if plan in ("restarted", "awaited"):
            self._renew(current)
            return (vars(current) if current else {}), []
        self.ledger, entry = self.ledger.add(
            **self._facts(), by=self.options["by"], why=self.options["why"], outcome="started", restores=self.restores
        )
        self.records.write(self.ledger, {self.release: self.objects})
        try:
            self._switch()
        except (ReleaseError, ClusterError) as error:
            raise ReleaseError(self._failed(entry, current, error)) from error
        self.ledger = self.ledger.finish(entry.number, "succeeded")
        return vars(self.ledger.entries[-1]), self._record()

    def _renew(self, current: Entry | None) -> None:
        """Have its pods as they are described, as after a secret has changed, once they pass a smoke test.

        Raises ReleaseError, with the failure recorded.
        """
        seconds = self.options["ready_seconds"]
        facts = self._facts() | {"by": self.options["by"], "why": self.options["why"]}
        try:
            if self.rollout.replaces(self.changes):
                self.rollout.try_out(self._smoke(), seconds)
            self.rollout.roll_out(seconds)
            if self.ledger.earlier_failure(self.release):
                self.ledger, _ = self.ledger.add(**facts, outcome="succeeded")
                self.records.write_ledger(self.ledger)
        except (ReleaseError, ClusterError) as error:
            said = redacted(self.records, str(error))
            self.ledger, entry = self.ledger.add(**facts, outcome="failed", reason=reason_of(said))
            self.records.write_ledger(self.ledger)
            before = settings(self.records.objects(current.release)) if current else {}
            failure_report = write_failure_report(
                self.records, entry, said, self.rollout.evidence, before, settings(self.objects)
            )
            raise ReleaseError(f"{said}\nevidence: {failure_report}") from error

    def _smoke(self) -> list[str]:
        """What is asked of it before anybody else may ask."""
        return list(self.probes["smoke"])

    def _record(self) -> list[str]:
        """Write the ledger, and keep of the releases only those that a rollback could go to: what was removed."""
        keep = self.ledger.releases_to_keep(self.options["keep"])
        self.records.write(self.ledger, {}, keep)
        return prune(self.cluster, keep, LABELS)

    def _facts(self) -> dict[str, str]:
        """What the ledger records of the release."""
        if self.restores is not None:
            entry = next(entry for entry in self.ledger.entries if entry.number == self.restores)
            names = ("release", "image", "config", "schema_required", "schema_tolerates", "version")
            return {name: getattr(entry, name) for name in names}
        workload = self.options["workload"]
        image = workload["image_facts"]
        return {
            "release": workload["release"],
            "image": image["identity"],
            "config": workload["config"],
            "schema_required": image["schema"]["required"],
            "schema_tolerates": image["schema"]["oldest_tolerated"],
            "version": image["version"],
        }

    def _switch(self) -> None:
        seconds = self.options["ready_seconds"]
        self.rollout.checks.look()
        # What serves already needs no smoke test: a rollout that was cut off had one.
        if self.rollout.serving() != self.release:
            self.rollout.try_out(self._smoke(), seconds)
        watch = self.rollout.roll_out(seconds)
        self.rollout.watch(watch, Analysis(**self.options["analysis"]), self.probes)

    def _failed(self, entry: Entry, current: Entry | None, error: Exception) -> str:
        """Put the last good release back if this one has replaced it, record the failure: what to say."""
        said = redacted(self.records, str(error))
        back = self._put_back(current)
        self.ledger = self.ledger.finish(entry.number, "failed", reason_of(said))
        before = settings(self.records.objects(current.release)) if current else {}
        self._record()
        last = self.ledger.entries[-1]
        failure_report = write_failure_report(
            self.records, last, said, self.rollout.evidence, before, settings(self.objects)
        )
        return "\n".join(part for part in (said, back, f"evidence: {failure_report}") if part)

    def _put_back(self, current: Entry | None) -> str:
        """Have what served before serve again, where the Deployment has been changed: what to say of it."""
        found = self.cluster.get(*self.rollout.key)
        live = self._rollout(self.objects).serving() if found else ""
        objects = self.records.objects(current.release) if current else []
        if live != self.release or (current and current.release == self.release):
            return ""
        if not objects:
            # A first release that fails after its smoke test: nothing has served before.
            self.cluster.delete(*self.rollout.key)
            return ""
        try:
            self._rollout(objects).roll_out(self.options["ready_seconds"])
        except (ReleaseError, ClusterError) as error:
            return f"release {current.release if current else ''} could not be put back: {error}"
        return f"release {current.release if current else ''} has been put back"


def settings(objects: list[Object]) -> dict[str, Any]:
    """What tells one release from another, for people."""
    found: dict[str, Any] = {}
    for thing in objects:
        if thing["kind"] == "Deployment":
            found |= {"container": dict(container(thing))}
        else:
            found |= {"settings": without_server_fields(thing).get("data", {})}
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=RELEASE
        | {
            "cluster": KubernetesClient.OPTION | {"required": True},
            "objects": {"type": "list", "elements": "dict"},
            "probes": {"type": "dict"},
            "replicas": {"type": "int", "default": 2},
            "max_replicas": {"type": "int", "default": 5},
        },
        required_one_of=[("objects", "restore")],
        mutually_exclusive=[("objects", "restore")],
        required_together=[("objects", "workload")],
        required_by={"restore": "probes"},
        supports_check_mode=True,
    )
    options = module.params
    name = options["workload"]["release"] if options["workload"] else f"of entry {options['restore']}"
    try:
        with KubernetesClient.of(options["cluster"]) as cluster:
            records = ClusterRecords(cluster)
            deployment = Deployment(cluster, records, options, check=module.check_mode)
            plan = deployment.plan()
            if plan != "none" and (again := deployment.ledger.earlier_failure(deployment.release)):
                module.warn(again)
            current = deployment.ledger.current()
            entry: dict[str, Any] = vars(current) if current else {}
            pruned: list[str] = []
            if plan != "none" and not module.check_mode:
                try:
                    entry, pruned = deployment.apply(plan)
                except (ReleaseError, ClusterError) as error:
                    # What a pod printed may be part of it.
                    raise ReleaseError(redacted(records, str(error))) from error
    except (ReleaseError, ClusterError, ValueError) as error:
        module.fail_json(msg=f"release {name} did not take over, what served before serves on: {error}")
    module.exit_json(
        changed=plan not in ("none", "awaited"),
        action=plan,
        release=deployment.release,
        entry=entry,
        pruned=pruned,
        calls=cluster.calls,
        diff=difference(deployment.changes),
    )


if __name__ == "__main__":
    main()
