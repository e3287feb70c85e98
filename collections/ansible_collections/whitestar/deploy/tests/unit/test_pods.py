# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cluster says of a pod that does not come is put into the words that tell what to do."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.pods import (
    PodWaiter,
    fault,
    leaving,
    ready,
    statuses,
    unscheduled,
)


def pod(state: dict[str, Any], restarts: int = 0, last: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """A pod with one container in this state."""
    container = {
        "name": "api",
        "image": "registry.test/titanic:1",
        "restartCount": restarts,
        "state": state,
        "lastState": {"terminated": last} if last else {},
    }
    return {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "api", "resources": {"limits": {"memory": "64Mi"}}}]},
        "status": {"containerStatuses": [container], **status},
    }


def waiting(reason: str, message: str = "words") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def condition(kind: str, status: str, **more: str) -> dict[str, Any]:
    return {"type": kind, "status": status, **more}


RUNNING = {"running": {"startedAt": "now"}}
ENDED = {"exitCode": 3, "reason": "Error"}


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (pod(waiting("ContainerCreating")), ""),
        (pod(RUNNING), ""),
        ({"metadata": {"name": "p"}, "spec": {"containers": []}}, ""),
        (
            pod(waiting("ImagePullBackOff")),
            "its image registry.test/titanic:1 cannot be pulled (ImagePullBackOff): words",
        ),
        (
            pod(waiting("InvalidImageName")),
            "its image registry.test/titanic:1 cannot be pulled (InvalidImageName): words",
        ),
        (
            pod(waiting("CreateContainerConfigError", 'secret "x" not found')),
            'its container cannot be made (CreateContainerConfigError): secret "x" not found',
        ),
        (pod(waiting("CreateContainerConfigError", "failed to sync configmap cache: timed out")), ""),
        (pod({"terminated": ENDED}), "it ended at once (exit code 3)"),
        (pod(waiting("CrashLoopBackOff"), 1, ENDED), "it ended at once (exit code 3)"),
        (pod(waiting("CrashLoopBackOff"), 4, ENDED), "it ended at once (exit code 3), again and again"),
        (
            pod({"terminated": {"exitCode": 128, "reason": "StartError", "message": 'exec: "x": not found'}}),
            'its container cannot be made (StartError): exec: "x": not found',
        ),
        (pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "it ran out of memory (limit: 64Mi)"),
        (pod(RUNNING, 1, {"exitCode": 137, "reason": "OOMKilled"}), "it ran out of memory (limit: 64Mi)"),
        (
            pod({"terminated": {"exitCode": 137, "reason": "Error"}}),
            "it was killed, as one that ran out of memory (limit: 64Mi)",
        ),
    ],
)
def test_a_fault_is_put_into_words(seen: dict[str, Any], words: str) -> None:
    assert fault(seen) == words


def test_a_container_may_end_as_often_as_it_is_let() -> None:
    again = pod(RUNNING, 1, ENDED)
    assert fault(again, restarts=1) == "it ended at once (exit code 3)"
    assert fault(again, restarts=2) == ""
    assert fault(pod({"terminated": ENDED}), restarts=1) == ""
    assert fault(pod(waiting("ErrImagePull")), restarts=9).startswith("its image ")


def test_the_containers_that_come_first_are_looked_at_too() -> None:
    seen = pod(waiting("PodInitializing"))
    seen["status"]["initContainerStatuses"] = [{"name": "first", "image": "i", "state": waiting("ErrImagePull")}]
    assert [status["name"] for status in statuses(seen)] == ["first", "api"]
    assert fault(seen) == "its image i cannot be pulled (ErrImagePull): words"


def test_a_pod_gets_requests_once_it_is_ready() -> None:
    assert ready(pod(RUNNING, conditions=[condition("Initialized", "True"), condition("Ready", "True")]))
    assert not ready(pod(RUNNING, conditions=[condition("Ready", "False")]))
    assert not ready({"metadata": {}})
    assert leaving({"metadata": {"deletionTimestamp": "now"}})
    assert not leaving({"metadata": {}})


def test_the_scheduler_s_words_are_told() -> None:
    refused = condition("PodScheduled", "False", reason="Unschedulable", message="0/1 nodes: Insufficient cpu.")
    assert (
        unscheduled(pod({}, conditions=[refused])) == "no node takes it (Unschedulable): 0/1 nodes: Insufficient cpu."
    )
    assert unscheduled(pod({}, conditions=[condition("PodScheduled", "True")])) == ""
    assert unscheduled({"metadata": {}}) == ""


class Told:
    """A namespace where a pod waits for room that somebody makes, as in a cluster that is full or grows."""

    def __init__(self, *reasons: str, **marks: str) -> None:
        self.marks = marks
        self.events = [{"reason": reason, "metadata": {"uid": reason}, "count": 1} for reason in reasons]

    def address(self, *_kind: str) -> str:
        return ""

    def request(self, _method: str, _path: str, fieldSelector: str = "") -> dict[str, Any]:  # noqa: N803 - the API's name
        return {"items": [] if "FailedCreate" in fieldSelector else self.events}

    def list(self, *_kind: str, **_labels: str) -> list[dict[str, Any]]:
        refused = condition("PodScheduled", "False", reason="Unschedulable", message="no room")
        waits = pod({}, conditions=[refused]) | {"metadata": {"name": "p", "uid": "u"}}
        return [waits, {"metadata": {"name": "q"} | self.marks}]


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        (Told(), "no node takes it (Unschedulable): no room"),
        (Told("FailedScheduling"), "no node takes it (Unschedulable): no room"),
        (Told("TriggeredScaleUp"), ""),
        (Told(deletionTimestamp="now"), ""),
    ],
)
def test_a_pod_that_room_is_being_made_for_is_waited_for(cluster: Told, words: str) -> None:
    watch = PodWaiter(cluster, {})  # type: ignore[arg-type]
    assert watch.problem() == "", "the scheduler may need a moment"
    watch.began -= 60
    assert watch.problem() == words
