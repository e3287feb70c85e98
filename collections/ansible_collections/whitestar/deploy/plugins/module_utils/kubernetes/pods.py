# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods that are waited for: why they do not get ready, in words, rather than that it took too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import json_bytes
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object, object_label
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import readable

POLL_SECONDS = 0.25
LOG_LINES = 15
FAILURE_REPORT_LINES = 300
SILENCE = "(no output)"
WORDS_POLLS = 8
# What a kubelet answers, as if it were the log, once it has removed the container.
LOG_IS_GONE = "unable to retrieve container logs"
# An autoscaler says so in an event when it makes room; without one, nothing will change by itself.
UNSCHEDULABLE_SECONDS = 10
GROWS = ("TriggeredScaleUp", "Nominated")
# The exit code of what ended by SIGKILL.
KILLED = 137
# States of a container that waiting does not mend.
NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
NOT_MADE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")
# A kubelet that has much to do says so of settings and secrets that it has not fetched yet, and goes on trying.
NOT_YET = "failed to sync"
Events = Sequence[Mapping[str, Any]]


def ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod gets requests."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def leaving(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has been told to end."""
    return "deletionTimestamp" in pod["metadata"]


def statuses(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is known of each of its containers."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def fault(pod: Mapping[str, Any], restarts: int = 0) -> str:
    """Why a pod will not get ready by itself, as far as its containers tell; empty while it may.

    A container may have ended as often as ``restarts``.
    """
    for status in statuses(pod):
        waiting = status.get("state", {}).get("waiting") or {}
        reason, said = str(waiting.get("reason", "")), str(waiting.get("message", ""))
        if reason in NO_IMAGE:
            return f"its image {status.get('image')} cannot be pulled ({reason}): {said}"
        if reason in NOT_MADE and not said.startswith(NOT_YET):
            return f"its container cannot be made ({reason}): {said}"
        ended = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated")
        if ended and status.get("restartCount", 0) >= restarts:
            return _end(pod, status, ended)
    return ""


def _end(pod: Mapping[str, Any], status: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    """How a container ended, in words."""
    if ended.get("reason") == "OOMKilled" or ended.get("exitCode") == KILLED:
        containers = {entry["name"]: entry for entry in pod["spec"]["containers"]}
        limit = containers.get(status["name"], {}).get("resources", {}).get("limits", {}).get("memory", "none")
        # A runtime that hears of it too late gives no reason.
        known = "it" if ended.get("reason") == "OOMKilled" else "it was killed, as one that"
        return f"{known} ran out of memory (limit: {limit})"
    if ended.get("reason") in NOT_MADE:
        return f"its container cannot be made ({ended['reason']}): {ended.get('message', '')}"
    again = ", again and again" if status.get("restartCount", 0) > 1 else ""
    return f"it ended at once (exit code {ended.get('exitCode')}){again}"


def unscheduled(pod: Mapping[str, Any]) -> str:
    """Why no node takes a pod, as the scheduler says; empty if one has, or has not been looked for yet."""
    for entry in pod.get("status", {}).get("conditions", []):
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            return f"no node takes it ({entry.get('reason')}): {entry.get('message', '')}"
    return ""


class PodWaiter:
    """Waits for the pods with some ``labels`` and says why they do not come; counts from when it was made."""

    def __init__(self, cluster: KubernetesClient, labels: Mapping[str, str], restarts: int = 0) -> None:
        self.cluster = cluster
        self.labels = dict(labels)
        self.restarts = restarts
        self.ignored: set[str] = set()
        self.began = time.monotonic()
        self.before = {_occurrence(event) for event in self._refusals()}

    def pods(self) -> list[Object]:
        """The pods that have not been told to end, without those that are ``ignored``, by their uid."""
        found = [pod for pod in self.cluster.list("v1", "Pod", **self.labels) if not leaving(pod)]
        return [pod for pod in found if pod["metadata"].get("uid") not in self.ignored]

    def until(self, done: Callable[[], bool], seconds: float) -> None:
        """Return once that is so. Raises ReleaseError with the reason why it will not be, or is not in time."""
        while not done():
            if problem := self.problem():
                raise ReleaseError(f"{problem}; its last output:\n{readable(self._last_output())}")
            if time.monotonic() - self.began > seconds:
                raise ReleaseError(
                    f"it did not get ready within {seconds:g} s: {self.last_words()}; "
                    f"its last output:\n{readable(self.output(LOG_LINES))}"
                )
            time.sleep(POLL_SECONDS)

    def problem(self) -> str:
        """What will not mend by itself; empty while nothing is known of."""
        for event in self._refusals():
            if _occurrence(event) not in self.before:
                return f"its pods are refused ({event['involvedObject']['kind']}): {event.get('message', '')}"
        for pod in self.pods():
            if found := fault(pod, self.restarts):
                return found
            waited = time.monotonic() - self.began
            if waited > UNSCHEDULABLE_SECONDS and (found := unscheduled(pod)) and not self._grows(pod):
                return found
        return ""

    def _refusals(self) -> list[Object]:
        """Events that tell of pods which a controller could not make: quota, admission."""
        found = self.cluster.request(
            "GET", self.cluster.address("v1", "Event"), fieldSelector="reason=FailedCreate,type=Warning"
        )
        return list((found or {}).get("items", []))

    def _grows(self, pod: Mapping[str, Any]) -> bool:
        """Whether room is being made for a pod: by pods that leave, or by an autoscaler."""
        if any(leaving(found) for found in self.cluster.list("v1", "Pod")):
            return True
        return any(event.get("reason") in GROWS for event in self.events(pod))

    def events(self, thing: Mapping[str, Any]) -> list[Object]:
        """What the cluster tells of an object, oldest first."""
        selector = f"involvedObject.uid={thing['metadata']['uid']}"
        found = self.cluster.request("GET", self.cluster.address("v1", "Event"), fieldSelector=selector)
        return sorted((found or {}).get("items", []), key=lambda event: str(event.get("lastTimestamp")))

    def last_words(self) -> str:
        """Why the pods that are not ready are not, as the cluster's last event about each has it."""
        said = []
        for pod in self.pods():
            if not ready(pod):
                warnings = [event for event in self.events(pod) if event.get("type") == "Warning"]
                why = unscheduled(pod) or (warnings[-1].get("message", "") if warnings else "nothing is known")
                said.append(" ".join(why.split())[:500])
        return "; ".join(dict.fromkeys(said)) or "there is no pod"

    def output(self, lines: int) -> str:
        """The last lines that each container printed, before its last end if it has ended."""
        said = [container_output(self.cluster, pod, status, lines) for pod in self.pods() for status in statuses(pod)]
        return "\n".join(text for text in said if text) or SILENCE

    def _last_output(self) -> str:
        """What has been printed; waits a little, as an end may be known before the last words are passed on."""
        for _ in range(WORDS_POLLS):
            time.sleep(POLL_SECONDS)
            if (said := self.output(LOG_LINES)) != SILENCE or not self.pods():
                return said
        return SILENCE

    def evidence(self) -> dict[str, str]:
        """What tells why they failed, for a failure report, by title. Never raises."""
        found = {}
        with suppress(ClusterError, KeyError):
            pods = self.pods()
            found["last output"] = self.output(FAILURE_REPORT_LINES)
            told = [_line(event) for pod in pods for event in self.events(pod)]
            refused = [_line(event) for event in self._refusals() if _occurrence(event) not in self.before]
            found["events, in order"] = "\n".join([*refused, *told]) or "(none)"
            described = [{"name": object_label(pod), "status": pod.get("status"), "spec": pod["spec"]} for pod in pods]
            found["what the system says of it"] = json_bytes(described).decode()
        return found


def wait_until_gone(pods: Callable[[], Sequence[Object]], seconds: float) -> None:
    """Return once there are none of these pods. Raises ClusterError if one stays."""
    deadline = time.monotonic() + seconds
    while found := pods():
        if time.monotonic() > deadline:
            names = ", ".join(object_label({"kind": "Pod", **pod}) for pod in found)
            raise ClusterError(f"{names} has not ended after {seconds:g} s. See what keeps it (finalizers).")
        time.sleep(POLL_SECONDS)


def container_output(cluster: KubernetesClient, pod: Object, status: Mapping[str, Any], lines: int) -> str:
    """The last lines that a container printed; those of its life before if it has ended and started again."""
    where = cluster.address("v1", "Pod", pod["metadata"]["name"], "log")
    query = {"container": str(status["name"]), "tailLines": str(lines)}
    lives: list[dict[str, str]] = [{}]
    if status.get("lastState", {}).get("terminated"):
        lives.insert(0, {"previous": "true"})
    elif status.get("state", {}).get("terminated"):
        # It may have been started again since, and have said nothing in its new life.
        lives.append({"previous": "true"})
    for life in lives:
        with suppress(ClusterError):
            text = cluster.text(where, **query, **life).strip()
            if text and not text.startswith(LOG_IS_GONE):
                return text
    return ""


def _occurrence(event: Mapping[str, Any]) -> tuple[str, int]:
    return str(event["metadata"]["uid"]), int(event.get("count") or 0)


def _line(event: Mapping[str, Any]) -> str:
    what = f"{event['involvedObject']['kind']} {event['involvedObject'].get('name', '')}"
    return f"{event.get('lastTimestamp')} {what} {event.get('reason')}: {' '.join(str(event.get('message')).split())}"
