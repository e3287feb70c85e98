# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release as a Deployment: a smoke test in a pod of its own, rolled out without a dropped request, then watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from copy import deepcopy
from secrets import token_hex
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import (
    Change,
    planned,
    with_secret_hash,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import COMPONENT, RELEASE
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import (
    Object,
    object_label,
    with_managed_labels,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.pods import LOG_LINES, PodWaiter, ready
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import with_current_secrets
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.http_checks import Checks
from ansible_collections.whitestar.deploy.plugins.module_utils.release.smoke_test import (
    Analysis,
    Traffic,
    Transcript,
    try_out,
)

# What the pod of the smoke test is called; no Service sends it anything.
TRIAL = "trial"
# More pods than there ever are.
MANY = 2**31 - 1


class Rollout:
    """The Deployment of a release, and the objects that go with it, all as they are wanted.

    ``replicas`` is how many there are at least and at most; between them, how many there are now is left alone.
    """

    def __init__(self, cluster: KubernetesClient, objects: Sequence[Object], replicas: tuple[int, int]) -> None:
        self.cluster = cluster
        made, names = with_current_secrets(cluster, objects)
        self.objects = [with_secret_hash(cluster, with_managed_labels(thing), names) for thing in made]
        self.deployment = next(thing for thing in self.objects if thing["kind"] == "Deployment")
        self.key = ("apps/v1", "Deployment", str(self.deployment["metadata"]["name"]))
        self.live = cluster.get(*self.key)
        now = int(self.live["spec"]["replicas"]) if self.live else replicas[0]
        # Left out, it would go back to one: we would give up a field that only we have.
        self.deployment["spec"] = self.deployment["spec"] | {"replicas": min(max(now, replicas[0]), replicas[1])}
        self.checks = Checks()
        self.transcript = Transcript()
        self.evidence: dict[str, str] = {}

    @property
    def template(self) -> Object:
        """The pods as they are wanted."""
        found: Object = self.deployment["spec"]["template"]
        return found

    @property
    def release(self) -> str:
        """The release of this Deployment."""
        return str(self.template["metadata"]["annotations"][RELEASE])

    @property
    def port(self) -> int:
        """Where the pods listen."""
        return int(self.template["spec"]["containers"][0]["ports"][0]["containerPort"])

    def changes(self, *, check: bool) -> list[Change]:
        """What differs. Raises ClusterError if the cluster refuses one of the objects."""
        return [change for thing in self.objects if (change := self._planned(thing, check=check)).needed]

    def _planned(self, thing: Object, *, check: bool) -> Change:
        """What would become of an object; a check knows no image where one is yet to be built, and cannot try it."""
        if (
            check
            and thing is self.deployment
            and not all(part["image"] for part in self.template["spec"]["containers"])
        ):
            return Change(thing, self.live or {}, thing)
        return planned(self.cluster, thing, check=check)

    def replaces(self, changes: Sequence[Change]) -> bool:
        """Whether these changes have pods replaced that serve."""
        return any(
            change.before["spec"]["template"] != change.after["spec"]["template"]
            for change in changes
            if change.wanted is self.deployment and change.before
        )

    def complete(self) -> bool:
        """Whether every pod is of the Deployment as it is described now, and available."""
        return _complete(self.cluster.get(*self.key))

    def serving(self) -> str:
        """The release of the Deployment that is there; empty without one."""
        annotations = self.live["spec"]["template"]["metadata"].get("annotations", {}) if self.live else {}
        return str(annotations.get(RELEASE, ""))

    def try_out(self, paths: Sequence[str], ready_seconds: float) -> None:
        """Start one pod of the release beside those that serve and ask it for what users will ask; then remove it.

        Raises ReleaseError, with the evidence kept, and ClusterError if the pod is refused.
        """
        self.tidy()
        for thing in self.objects:
            # What the pod reads; made under a name of its own, so that nothing that serves notices.
            if thing is not self.deployment:
                self.cluster.apply(thing)
        pod = self._trial()
        name = pod["metadata"]["name"]
        watch = PodWaiter(self.cluster, pod["metadata"]["labels"])
        report("run the smoke test in a pod of its own")
        try:
            try:
                self.cluster.create(pod)
            except ClusterError as error:
                raise ReleaseError(f"its pod is refused: {error}") from error
            watch.until(lambda: any(ready(found) for found in watch.pods()), ready_seconds)
            with self.cluster.forwarded(name, self.port) as address:
                try_out([address], paths, self.checks.on_trial(), lambda: watch.output(LOG_LINES), self.transcript)
        except (ReleaseError, ClusterError):
            self._record_evidence(watch)
            raise
        finally:
            with suppress(ClusterError):
                self.cluster.delete("v1", "Pod", name, now=True)

    def _trial(self) -> Object:
        """The pod of the smoke test."""
        pod = deepcopy(self.template)
        labels = pod["metadata"]["labels"] | {COMPONENT: TRIAL, RELEASE: self.release}
        pod["metadata"] = {**pod["metadata"], "name": f"{self.key[2]}-{TRIAL}-{token_hex(3)}", "labels": labels}
        pod["spec"].pop("topologySpreadConstraints", None)
        pod["spec"]["terminationGracePeriodSeconds"] = 1
        for container in pod["spec"]["containers"]:
            container.pop("lifecycle", None)
        return with_managed_labels({"apiVersion": "v1", "kind": "Pod", **pod})

    def tidy(self) -> None:
        """Remove the smoke tests' pods of runs that were killed."""
        for pod in self.cluster.list("v1", "Pod", **{COMPONENT: TRIAL}):
            self.cluster.delete("v1", "Pod", pod["metadata"]["name"], now=True)

    def roll_out(self, ready_seconds: float) -> PodWaiter:
        """Apply the objects and wait until every pod is a new one. Raises ReleaseError with the reason otherwise."""
        labels = self.deployment["spec"]["selector"]["matchLabels"] | {RELEASE: self.release}
        watch = PodWaiter(self.cluster, labels, restarts=1)
        before = watch.pods()
        for thing in self.objects:
            found = self.cluster.apply(thing)
            if thing is self.deployment and self.live and found["spec"]["template"] != self.live["spec"]["template"]:
                # Those go, whatever is wrong with them, as when somebody has changed the Deployment by hand.
                watch.ignored = {str(pod["metadata"]["uid"]) for pod in before}
        # One pod after another.
        seconds = ready_seconds * (1 + int(self.deployment["spec"]["replicas"]))
        try:
            watch.until(self._rolled_out, seconds)
        except ReleaseError:
            self._record_evidence(watch)
            raise
        return watch

    def _rolled_out(self) -> bool:
        """The same for who waits. Raises ReleaseError once somebody has paused it: nothing comes of waiting."""
        found = self.cluster.get(*self.key)
        if found and found["spec"].get("paused"):
            remedy = f"Resume it with: kubectl --namespace {self.cluster.namespace} rollout resume deployment"
            raise ReleaseError(f"{object_label(self.deployment)} is paused. {remedy} {self.key[2]}")
        if found:
            status, wanted = found.get("status", {}), found["spec"]["replicas"]
            new, available = (status.get(name, 0) for name in ("updatedReplicas", "availableReplicas"))
            report(f"{new} of {wanted} replicas are new, {available} available")
        return _complete(found)

    def watch(self, watch: PodWaiter, analysis: Analysis, probes: Mapping[str, Any]) -> None:
        """Ask the reverse proxy for what it kept before, then compare the metrics of all pods with the bounds.

        ``probes`` are the workload's.

        Raises ReleaseError for a promise that is broken now, and when the metrics leave their bounds.
        """
        try:
            self.checks.require_kept()
        except ReleaseError:
            self._record_evidence(watch)
            raise
        if not analysis.seconds:
            return
        report(f"watch the release under analysis, for {analysis.seconds:g} s")
        with ExitStack() as stack:
            pods = [str(pod["metadata"]["name"]) for pod in watch.pods()]
            addresses = [stack.enter_context(self.cluster.forwarded(pod, self.port)) for pod in pods]
            try:
                analysis.watch(lambda: Traffic.at(addresses, probes), watch.problem)
            except ReleaseError:
                self._record_evidence(watch)
                raise

    def _record_evidence(self, watch: PodWaiter) -> None:
        self.evidence = watch.evidence() | {"answers, in order": str(self.transcript)}


def _complete(found: Object | None) -> bool:
    """Whether every pod of a Deployment is as it is described now, and available."""
    if not found:
        return False
    status, wanted = found.get("status", {}), found["spec"]["replicas"]
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration") == found["metadata"]["generation"] and counts == [wanted] * 3


def prune(cluster: KubernetesClient, kept: set[str], labels: Mapping[str, str]) -> list[str]:
    """Remove the settings of releases that are not kept: the names of what was removed."""
    gone = []
    for found in cluster.list("v1", "ConfigMap", **labels):
        release = found["metadata"].get("labels", {}).get(RELEASE)
        if release and release not in kept:
            gone.append(str(found["metadata"]["name"]))
            cluster.delete("v1", "ConfigMap", gone[-1])
    return gone


def container(deployment: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container that serves."""
    found: Mapping[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return found
