# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A namespace is stopped, database last, and started again with as many pods as before and with nothing lost."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import SECRETS
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import LEDGER
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.stop import STOPPED, at_rest
from ansible_collections.whitestar.deploy.tests.cluster_helpers import (
    DEBIAN,
    SECRET,
    USER,
    Space,
    objects_of,
    tiny_release,
)
from ansible_collections.whitestar.deploy.tests.helpers import OWNER, SERVICE, Result

RELEASE = tiny_release("a" * 12, TINY_LIVE_SCHEMA="0001")
ALLOWED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
CONTAINER = {"name": "server", "image": DEBIAN, "command": ["sleep", "600"], "securityContext": ALLOWED}
SECURITY = {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}}
POD = {"terminationGracePeriodSeconds": 0, "securityContext": SECURITY, "containers": [CONTAINER]}
LABELS = {"app": "server"}
SERVER: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "server"},
    "spec": {
        "serviceName": "server",
        "replicas": 1,
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": POD},
    },
}


@pytest.fixture(scope="module")
def deployed(space: Space) -> Space:
    """A database, or what stands for it, and two pods of a release."""
    space.make(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRETS}, "stringData": {"password": SECRET}}
    )
    assert not space.keep("database", [SERVER]).failed
    assert deploy(space)["action"] == "deployed"
    return space


def deploy(space: Space) -> Result:
    given: dict[str, Any] = {"objects": objects_of(RELEASE), "workload": RELEASE, "replicas": 2, "by": "alice@laptop"}
    return space.run("kubernetes_release", why="deploy", ready_seconds=60, **given)


def have(space: Space, wanted: str, *, check: bool = False) -> Result:
    given = {"state": wanted, "address": "127.0.0.1:9", "by": "bob@laptop", "ready_seconds": 60}
    return space.run("kubernetes_lifecycle", probes=SERVICE["probes"], check=check, **given)


def pods(space: Space) -> int:
    return len(space.names("pod"))


def test_six_steps(deployed: Space) -> None:
    """Stop and start, each in check mode, for real and again."""
    space = deployed
    ledger = space.get("configmap", LEDGER)["data"]
    stops = ["stop Deployment titanic-api", "stop StatefulSet server"]
    before = space.versions()
    assert have(space, "stopped", check=True)["steps"] == stops
    assert space.versions() == before
    assert have(space, "stopped")["steps"] == stops
    assert pods(space) == 0
    before = space.versions()
    for check in (True, False):
        again = have(space, "stopped", check=check)
        assert (again.changed, again["steps"]) == (False, [])
    assert space.versions() == before
    assert "by bob@laptop: --tags start" in have(space, "reported")["status"]["stopped"]
    (line,) = space.run("kubernetes_drift_info")["differences"]
    assert "is stopped: --tags start" in line["text"]
    asked: dict[str, Any] = {"state": "present", "owner": OWNER, "deploys": False, "needs_running": True}
    assert space.run("kubernetes_lock", **asked).message.startswith("the deployment is stopped since ")

    starts = ["start StatefulSet server", f"start release {RELEASE['release']}"]
    assert have(space, "started", check=True)["steps"] == starts
    assert space.versions() == before
    assert have(space, "started")["steps"] == starts
    assert pods(space) == 3, "as many as before"
    before = space.versions()
    for check in (True, False):
        assert not have(space, "started", check=check).changed
    assert space.versions() == before
    assert have(space, "reported")["status"]["stopped"] == "no"
    assert STOPPED not in space.get("deployment", "titanic-api")["metadata"]["annotations"]
    assert space.get("configmap", LEDGER)["data"] == ledger


def test_a_deployment_starts_what_was_stopped(deployed: Space) -> None:
    space = deployed
    assert not have(space, "stopped").failed
    assert space.keep("database", [SERVER])["steps"] == ["change StatefulSet server"]
    assert deploy(space)["action"] == "restarted"
    assert pods(space) == 3
    assert have(space, "reported")["status"]["stopped"] == "no"


def test_nothing_deployed_is_refused(own_space: Space) -> None:
    for wanted in ("stopped", "started"):
        for check in (True, False):
            assert "there is nothing to stop or to start" in have(own_space, wanted, check=check).message


def test_a_cluster_of_cloudnative_pg_hibernates() -> None:
    cluster = {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": "c"}, "spec": {}}
    assert at_rest(cluster)["metadata"]["annotations"] == {"cnpg.io/hibernation": "on"}
