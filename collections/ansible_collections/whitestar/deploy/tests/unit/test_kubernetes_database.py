# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A login is not taken away while a pod that is about to end may answer with it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError
from ansible_collections.whitestar.deploy.plugins.modules import kubernetes_database
from ansible_collections.whitestar.deploy.plugins.modules.kubernetes_database import wait_for_last_answers

SERVING = {"metadata": {"name": "new"}}
ENDING = {"metadata": {"name": "old", "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}}


class Pods:
    """A cluster whose pods are these, each time that it is asked; the last ones from then on."""

    def __init__(self, *answers: list[dict[str, Any]]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def list(self, _version: str, kind: str, **labels: str) -> Any:
        assert (kind, labels["app.kubernetes.io/component"]) == ("Pod", "api")
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_pods_that_end_are_waited_for_and_those_that_serve_are_not() -> None:
    pods: Any = Pods([SERVING, ENDING], [SERVING, ENDING], [SERVING, ENDING], [SERVING])
    wait_for_last_answers(pods)
    assert pods.asked == 4


def test_a_pod_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_database, "MARGIN_SECONDS", 0)
    stays: Any = Pods([ENDING])
    with pytest.raises(ClusterError, match=r"Pod old has not ended after 0 s\. See what keeps it"):
        wait_for_last_answers(stays)
