# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""While there is maintenance the Service selects pods that answer with a message, whatever is deployed meanwhile."""

from __future__ import annotations

from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.maintenance import maintenance, selecting
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import COMPONENT, labels, pod
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Ledger
from ansible_collections.whitestar.deploy.plugins.modules.kubernetes_maintenance import STAGE
from ansible_collections.whitestar.deploy.tests.cluster_helpers import PYTHON, Space

# In the place of Caddy: what it says is the message of the ConfigMap.
PROGRAM = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503)
        self.end_headers()
        self.wfile.write(open("/run/message/problem.json", "rb").read())
http.server.HTTPServer(("", 8000), Handler).serve_forever()
"""
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "titanic-api"},
    "spec": {"selector": labels("api"), "ports": [{"port": 80, "targetPort": 8000}]},
}
RELEASE = {"release": "a" * 12, "image": "a" * 12, "config": "", "schema_required": "1", "schema_tolerates": "1"}


def answering(image: str = PYTHON) -> list[dict[str, Any]]:
    """What answers meanwhile."""
    container = {
        "name": "server",
        "image": image,
        "command": ["python3", "-c", PROGRAM],
        "ports": [{"containerPort": 8000}],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}},
    }
    spec = pod(container, 10002, "default", "unused", "/run/titanic")
    spec["volumes"] = [{"name": "message", "configMap": {"name": "titanic-maintenance"}}]
    spec["containers"][0]["volumeMounts"] = [{"name": "message", "mountPath": "/run/message"}]
    spec["terminationGracePeriodSeconds"] = 0
    template = {"metadata": {"labels": labels("maintenance")}, "spec": spec}
    wanted = {"replicas": 1, "selector": {"matchLabels": labels("maintenance")}, "template": template}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "titanic-maintenance"}, "spec": wanted}
    ]


def selected(space: Space) -> str:
    return str(space.get("service", "titanic-api")["spec"]["selector"][COMPONENT])


def test_twelve_steps(own_space: Space) -> None:
    space = own_space
    options: dict[str, Any] = {"objects": answering(), "message": "Back at two.", "by": "a@b", "seconds": 100}
    early = space.run("kubernetes_maintenance", enabled=True, **options)
    assert "nothing is deployed in namespace" in early["msg"]
    space.make(SERVICE)
    with KubernetesClient.of(space.options) as cluster:
        ledger, _ = Ledger().add(**RELEASE, version="1", by="a@b", why="deploy", outcome="succeeded")
        ClusterRecords(cluster).write_ledger(ledger)
    assert not space.run("kubernetes_maintenance", enabled=False, **options)["changed"]
    assert space.run("kubernetes_maintenance", check=True, enabled=True, **options)["changed"]
    assert selected(space) == "api"
    begun = space.run("kubernetes_maintenance", enabled=True, **options)
    assert begun["changed"]
    assert begun["maintenance"]["message"] == "Back at two."
    assert selected(space) == "maintenance"
    again = space.run("kubernetes_maintenance", enabled=True, **options)
    assert not again["changed"]
    with KubernetesClient.of(space.options) as cluster:
        # A deployment meanwhile leaves it so.
        assert selecting(cluster, [SERVICE])[0]["spec"]["selector"][COMPONENT] == "maintenance"
    other = options | {"message": "Back at three."}
    assert space.run("kubernetes_maintenance", check=True, enabled=True, **other)["changed"]
    assert space.run("kubernetes_maintenance", enabled=True, **other)["changed"]
    assert "Back at three." in space.get("configmap", "titanic-maintenance")["data"]["problem.json"]
    assert space.run("kubernetes_maintenance", check=True, enabled=False, **options)["changed"]
    assert selected(space) == "maintenance"
    assert space.run("kubernetes_maintenance", enabled=False, **options)["changed"]
    assert selected(space) == "api"
    assert not space.run("kubernetes_maintenance", enabled=False, **options)["changed"]
    with KubernetesClient.of(space.options) as cluster:
        assert maintenance(cluster) is None
    assert STAGE == "maintenance"
    assert space.names("deployment") == []


def test_pods_that_do_not_come_change_nothing(own_space: Space) -> None:
    space = own_space
    space.make(SERVICE)
    with KubernetesClient.of(space.options) as cluster:
        ledger, _ = Ledger().add(**RELEASE, version="1", by="a@b", why="deploy", outcome="succeeded")
        ClusterRecords(cluster).write_ledger(ledger)
    missing = answering("127.0.0.1:5055/library/no-such-image:1")
    refused = space.run("kubernetes_maintenance", enabled=True, objects=missing, message="Back.", by="a@b", seconds=60)
    assert refused["failed"]
    assert "nothing was changed" in refused["msg"]
    assert "cannot be pulled" in refused["msg"]
    assert selected(space) == "api"
    with KubernetesClient.of(space.options) as cluster:
        assert maintenance(cluster) is None
