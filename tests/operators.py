"""What operators bring to a cluster: their kinds, out of Go modules, and the part of one that cannot be had."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object

from tests.cluster import Cluster

# Each kind with the module that has its definition, and where.
DEFINITIONS = {
    "secretstores.external-secrets.io": ("github.com/external-secrets/external-secrets@v1.3.2", "config/crds/bases"),
    "externalsecrets.external-secrets.io": ("github.com/external-secrets/external-secrets@v1.3.2", "config/crds/bases"),
    "clusters.postgresql.cnpg.io": ("github.com/cloudnative-pg/cloudnative-pg@v1.28.0", "config/crd/bases"),
    "httproutes.gateway.networking.k8s.io": ("sigs.k8s.io/gateway-api@v1.4.1", "config/crd/standard"),
    "clusterissuers.cert-manager.io": ("github.com/cert-manager/cert-manager@v1.21.2", "deploy/crds"),
}
DOWNLOAD_SECONDS = 120
ESTABLISH_SECONDS = 60
POLL_SECONDS = 0.3
STORES = "external-secrets.io/v1"


def definition(name: str) -> Path:
    """The file with a kind's definition, fetched by Go. Raises LookupError with the reason why there is none."""
    module, directory = DEFINITIONS[name]
    plural, _, group = name.partition(".")
    go = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")
    if go is None:
        raise LookupError(f"there is no Go to fetch the definition of {name} with")
    with tempfile.TemporaryDirectory() as nowhere:
        command = [go, "mod", "download", "-json", module]
        environment = os.environ | {"GOFLAGS": "-mod=mod"}
        done = subprocess.run(
            command, cwd=nowhere, env=environment, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS
        )
    found = json.loads(done.stdout or "{}")
    if "Dir" not in found:
        raise LookupError(f"{module} cannot be fetched: {found.get('Error') or done.stderr.strip()}")
    return Path(found["Dir"]) / directory / f"{group}_{plural}.yaml"


@contextmanager
def defined(cluster: Cluster, *names: str) -> Iterator[None]:
    """Have the cluster know kinds; those that it did not know before are removed again. Raises LookupError."""
    known = cluster("get", "crd", "--output", "name")
    files = [str(definition(name)) for name in names if name not in known]
    chosen = [word for path in files for word in ("--filename", path)]
    try:
        if files:
            cluster("apply", "--server-side", *chosen)
            deadline = time.monotonic() + ESTABLISH_SECONDS
            # It fails at once for one that has no condition yet.
            while cluster.run("wait", "--for=condition=Established", "--timeout=10s", *chosen).returncode:
                assert time.monotonic() < deadline, f"the cluster does not take {names}"
                time.sleep(POLL_SECONDS)
        yield
    finally:
        if files:
            cluster.run("delete", "--ignore-not-found", *chosen)


class ExternalSecrets:
    """The part of the External Secrets Operator in a namespace: it reads a store, which is a dictionary here.

    To be used as a context. ``refuses`` is why the store cannot be read, where it cannot.
    """

    def __init__(self, options: dict[str, Any], store: dict[str, str]) -> None:
        self.options = options
        self.store = store
        self.refuses = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="external-secrets", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        with KubernetesClient.of(self.options) as cluster:
            while not self._over.wait(POLL_SECONDS):
                try:
                    self._look(cluster)
                except ClusterError as error:
                    # The namespace comes and goes, and kinds with it.
                    print(f"external-secrets: {error}")

    def _look(self, cluster: KubernetesClient) -> None:
        for found in cluster.list(STORES, "SecretStore"):
            reason = "InvalidProviderConfig" if self.refuses else "Valid"
            self._tell(cluster, found, reason, self.refuses or "store validated")
        for found in cluster.list(STORES, "ExternalSecret"):
            metadata = found["metadata"]
            marks = json.dumps([metadata.get("annotations"), metadata.get("labels")], sort_keys=True)
            version = f"{metadata['generation']}-{hashlib.sha256(marks.encode()).hexdigest()}"
            if found.get("status", {}).get("syncedResourceVersion") != version:
                self._sync(cluster, found, version)

    def _sync(self, cluster: KubernetesClient, found: Object, version: str) -> None:
        """Make the Secret of what the store has."""
        wanted = {entry["secretKey"]: entry["remoteRef"]["key"] for entry in found["spec"]["data"]}
        missing = [key for key in wanted.values() if key not in self.store]
        if missing or self.refuses:
            self._tell(cluster, found, "SecretSyncedError", self.refuses or f"Secret {missing[0]} does not exist")
            return
        target = found["spec"]["target"]
        values = {name: self.store[key] for name, key in wanted.items()} | target["template"].get("data", {})
        metadata = found["metadata"]
        owner = {key: found[key] for key in ("apiVersion", "kind")} | {key: metadata[key] for key in ("name", "uid")}
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": target["name"], "ownerReferences": [owner], **target["template"]["metadata"]},
                "type": target["template"]["type"],
                "data": {name: base64.b64encode(value.encode()).decode() for name, value in values.items()},
            }
        )
        self._tell(cluster, found, "SecretSynced", "secret synced", syncedResourceVersion=version)

    def _tell(self, cluster: KubernetesClient, thing: Object, reason: str, message: str, **status: str) -> None:
        """Have the object's condition say so, if it does not."""
        ready = str(reason in {"Valid", "SecretSynced"})
        entry = {"type": "Ready", "status": ready, "reason": reason, "message": message}
        now = [{key: old.get(key) for key in entry} for old in thing.get("status", {}).get("conditions", [])]
        if now == [entry] and not status:
            return
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        change = {"status": {"conditions": [{**entry, "lastTransitionTime": at}], **status}}
        where = cluster.address(STORES, thing["kind"], thing["metadata"]["name"], "status")
        cluster.request("PATCH", where, change, "application/merge-patch+json")
