"""The Kubernetes cluster that tests use: the one of ``KUBECONFIG``, or the lab's, if its node is of this machine."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.tests.cluster_helpers import Reader

from tests.end_to_end.load.open_loop import is_of_this_machine
from tests.engine import Engine

LAB = Path("/var/lib/titanic-lab/cluster")
CLIENT_SECONDS = 120


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers. ``address`` is its node's, where the Ingress answers; ``engine`` builds its images."""

    program: str
    kubeconfig: str
    engine: Engine
    address: str = ""

    @classmethod
    def found(cls) -> Cluster:
        """The cluster. Raises LookupError with the reason why there is none."""
        given = os.environ.get("KUBECONFIG")
        kubeconfig, path = (given, None) if given else (str(LAB / "kubeconfig" / "admin"), str(LAB / "bin"))
        program = shutil.which("kubectl", path=path)
        if program is None or not Path(kubeconfig).is_file():
            raise LookupError("there is no cluster (make cluster brings one up, or KUBECONFIG names one)")
        cluster = cls(program, kubeconfig, Engine.found())
        nodes = cluster.run("get", "nodes", "--output", "json", "--request-timeout", "10s")
        if nodes.returncode:
            raise LookupError(f"no cluster answers ({kubeconfig}): {nodes.stderr.strip()}")
        (address, *_) = [
            entry["address"]
            for node in json.loads(nodes.stdout)["items"]
            for entry in node["status"]["addresses"]
            if entry["type"] == "InternalIP"
        ]
        if not is_of_this_machine(address):
            raise LookupError(f"the cluster's node {address} is not of this machine, which the tests look into")
        return cls(program, kubeconfig, cluster.engine, address)

    @property
    def client(self) -> str:
        """This machine's own address as the cluster sees it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect((self.address, 9))  # nothing is sent: it chooses the address to send from
            return str(way.getsockname()[0])

    @property
    def variables(self) -> dict[str, Any]:
        """Variables of the collection that name this cluster."""
        return {
            "titanic_cluster": {"kubectl": self.program, "kubeconfig": self.kubeconfig},
            "titanic_api_address": self.address,
        }

    def run(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """What became of ``kubectl words…``, whatever its exit status."""
        command = [self.program, "--kubeconfig", self.kubeconfig, *words]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=CLIENT_SECONDS)

    def __call__(self, *words: str, text: str = "") -> str:
        """Standard output of ``kubectl words…``, which must succeed."""
        done = self.run(*words, text=text)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr[-2000:]}"
        return done.stdout.strip()

    def get(self, namespace: str, kind: str, name: str = "", **labels: str) -> list[dict[str, Any]]:
        """The objects of a kind in a namespace, or the one of this name; none where there is none."""
        selector = ",".join(f"{label}={value}" for label, value in labels.items())
        return Reader.of(self.program, self.kubeconfig).get(namespace, kind, name, selector)
