# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of a release that run once, as Jobs, and answer in JSON."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from secrets import token_hex
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import PREFIX
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import COMPONENT, LABELS
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.pods import (
    PodWaiter,
    fault,
    leaving,
    statuses,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError

COMMAND = f"{PREFIX}command"
KEY = f"{PREFIX}key"
ANSWER = f"{PREFIX}answer"
POLL_SECONDS = 0.2
OUTPUT_LINES = 500
JOB_LABEL = "batch.kubernetes.io/job-name"


class Command:
    """A command of this ``name``; its Jobs are called ``titanic-NAME-…``."""

    def __init__(self, cluster: KubernetesClient, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def jobs(self) -> list[Object]:
        """Its Jobs, oldest first."""
        found = self.cluster.list("batch/v1", "Job", **{COMMAND: self.name})
        return sorted(found, key=lambda job: str(job["metadata"]["creationTimestamp"]))

    def answered(self, key: str) -> dict[str, Any] | None:
        """What its last Job answered, if that was done with this ``key`` and came to a good end."""
        for job in self.jobs()[-1:]:
            annotations = job["metadata"].get("annotations", {})
            if annotations.get(KEY) == key and _ended(job) == "Complete":
                found: dict[str, Any] = json.loads(annotations.get(ANSWER, "null"))
                return found
        return None

    def last_answer(self) -> dict[str, Any]:
        """What the newest of its Jobs that came to a good end answered; empty if there is none, or it is gone."""
        for job in reversed(self.jobs()):
            if answer := job["metadata"].get("annotations", {}).get(ANSWER):
                found: dict[str, Any] = json.loads(answer)
                return found
        return {}

    def wait_for_others(self, seconds: float) -> None:
        """Wait until what a run that was killed has left at work is done. Raises ReleaseError if that takes longer."""
        deadline = time.monotonic() + seconds
        while running := [job for job in self.jobs() if not _ended(job)]:
            _refuse_suspended(running)
            if time.monotonic() > deadline:
                names = ", ".join(str(job["metadata"]["name"]) for job in running)
                raise ReleaseError(f"Job {names} of an earlier run is still at work. Wait for it, or delete it.")
            time.sleep(POLL_SECONDS)

    def run(self, job: Object, key: str, source: Path | None, seconds: float) -> tuple[bool, Any, str]:
        """Run it: whether it came to a good end, its JSON answer (None without one), and what else it printed.

        ``source`` is what it reads from its standard input. What it answered is kept with the Job under ``key``.
        Raises ReleaseError if it cannot run, or takes longer than ``seconds``.
        """
        older = self.jobs()
        name = f"titanic-{self.name}-{token_hex(4)}"
        metadata = dict(job["metadata"]) | {"name": name}
        metadata["labels"] = dict(metadata.get("labels", {})) | {COMMAND: self.name}
        metadata["annotations"] = dict(metadata.get("annotations", {})) | {KEY: key}
        # A container that has ended is an answer, not a fault; it is never started again.
        watch = PodWaiter(self.cluster, {JOB_LABEL: name}, restarts=1)
        self.cluster.create(dict(job) | {"metadata": metadata})
        try:
            if source:
                self._feed(watch, source, seconds)
            done = self._wait(watch, name, seconds)
            answer, said = _read(self._output(name))
            if not done:
                how = [found for pod in watch.pods() if (found := fault(pod))]
                said = "\n".join([*how, said])
        except BaseException:
            self.cluster.delete("batch/v1", "Job", name)
            raise
        if done and isinstance(answer, dict):
            change = {"metadata": {"annotations": {ANSWER: json.dumps(answer)}}}
            where = self.cluster.address("batch/v1", "Job", name)
            self.cluster.request("PATCH", where, change, "application/merge-patch+json")
        for old in older:
            self.cluster.delete("batch/v1", "Job", old["metadata"]["name"])
        return done, answer, said

    def _feed(self, watch: PodWaiter, source: Path, seconds: float) -> None:
        """Give a file to the standard input of the container, once it runs."""
        watch.until(
            lambda: any("running" in status["state"] for pod in watch.pods() for status in statuses(pod)), seconds
        )
        words = self.cluster.words("attach", "--stdin", "--quiet", watch.pods()[0]["metadata"]["name"])
        try:
            with source.open("rb") as stream:
                subprocess.run(words, stdin=stream, capture_output=True, check=False, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise ReleaseError(f"{source} was not taken within {seconds:g} s") from error

    def _wait(self, watch: PodWaiter, name: str, seconds: float) -> bool:
        """Whether the Job came to a good end."""
        where = self.cluster.address("batch/v1", "Job", name)

        def ended() -> bool:
            job = self.cluster.request("GET", where) or {}
            _refuse_suspended([job])
            return bool(_ended(job))

        watch.until(ended, seconds)
        return _ended(self.cluster.request("GET", where) or {}) == "Complete"

    def _output(self, name: str) -> str:
        """Everything that its last pod printed."""
        pods = [pod for pod in self.cluster.list("v1", "Pod", **{JOB_LABEL: name}) if not leaving(pod)]
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))[-1:]:
            where = self.cluster.address("v1", "Pod", pod["metadata"]["name"], "log")
            with suppress(ClusterError):
                return self.cluster.text(where, tailLines=str(OUTPUT_LINES))
        return ""


def _ended(job: Mapping[str, Any]) -> str:
    """Complete or Failed; empty while it is at work."""
    for entry in job.get("status", {}).get("conditions", []):
        if entry["type"] in ("Complete", "Failed") and entry["status"] == "True":
            return str(entry["type"])
    return ""


def _refuse_suspended(jobs: Iterable[Mapping[str, Any]]) -> None:
    """Raises ReleaseError for a Job that somebody has suspended: nothing comes of waiting for it."""
    for job in jobs:
        if job.get("spec", {}).get("suspend"):
            remedy = "Resume it (kubectl patch job, spec.suspend false), or delete it."
            raise ReleaseError(f"Job {job['metadata']['name']} is suspended. {remedy}")


def _read(output: str) -> tuple[Any, str]:
    """The last line that is a JSON object, and the others."""
    lines = output.splitlines()
    for place in range(len(lines) - 1, -1, -1):
        with suppress(ValueError):
            answer = json.loads(lines[place])
            if isinstance(answer, dict):
                return answer, "\n".join(lines[:place] + lines[place + 1 :])
    return None, output


def job_of(objects: list[Object], arguments: list[str]) -> Object:
    """A Job that runs another command of a release's program, in a pod like those that serve."""
    (deployment,) = [thing for thing in objects if thing["kind"] == "Deployment"]
    template = deepcopy(deployment["spec"]["template"])
    template["spec"].pop("topologySpreadConstraints", None)
    template["spec"]["restartPolicy"] = "Never"
    template["metadata"]["labels"] = template["metadata"]["labels"] | {COMPONENT: "job"}
    (container, *_) = template["spec"]["containers"]
    for name in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "ports"):
        container.pop(name, None)
    container["command"] = [container["command"][0], *arguments]
    spec = {"backoffLimit": 0, "ttlSecondsAfterFinished": 600, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "labels": LABELS}, "spec": spec}
