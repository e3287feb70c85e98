# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger, the objects of each release and the evidence of failed ones, as ConfigMaps of the namespace."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import json_bytes
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import SECRETS, SYNCED, record
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import (
    LABELS,
    Object,
    with_managed_labels,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import FAILURE_REPORTS_KEPT, Ledger

LEDGER = "titanic-ledger"
ENTRIES = "ledger.json"
FAILURE_REPORT_LABEL = "whitestar.deploy/capsule"
# A ConfigMap holds 1 MiB (its documentation); the beginning of the evidence says most.
FAILURE_REPORT_BYTES = 900_000


class ClusterRecords:
    """What is recorded of releases in a namespace; read once, when it is made."""

    def __init__(self, cluster: KubernetesClient) -> None:
        self.cluster = cluster
        self._found = record(cluster, LEDGER)

    def ledger(self) -> Ledger:
        """The ledger, empty before the first release. Raises ValueError for one that cannot be read."""
        data = self._found.get("data", {})
        kept = [name.removesuffix(".json") for name in data if name != ENTRIES]
        try:
            return Ledger.from_document(json.loads(data.get(ENTRIES, "{}")), kept)
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"ConfigMap {LEDGER} is not readable ({error}). Restore it, or delete it.") from error

    def objects(self, release: str) -> list[Object]:
        """The objects that a recorded release serves with; none if they are not kept."""
        found: list[Object] = json.loads(self._found.get("data", {}).get(f"{release}.json", "[]"))
        return found

    def write_ledger(self, ledger: Ledger) -> None:
        """Replace the ledger. Raises ClusterError, with status 409 if another run has written it meanwhile."""
        self.write(ledger, {})

    def write(self, ledger: Ledger, objects: Mapping[str, Sequence[Object]], keep: set[str] | None = None) -> None:
        """Replace the ledger, add the objects of releases, and drop those of releases that are not to be kept."""
        data = {
            name: text
            for name, text in self._found.get("data", {}).items()
            if keep is None or name.removesuffix(".json") in keep
        }
        data |= {f"{release}.json": json.dumps(list(made)) for release, made in objects.items()}
        data[ENTRIES] = json_bytes(ledger.document()).decode()
        metadata = {"name": LEDGER}
        if self._found:
            metadata["resourceVersion"] = self._found["metadata"]["resourceVersion"]
        wanted = with_managed_labels({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
        self._found = self.cluster.replace(wanted) if self._found else self.cluster.create(wanted)

    def secrets(self) -> Iterator[tuple[str, str]]:
        """Every secret that the collection knows of, by its name: those that it keeps, and those out of a store."""
        for place in (*SYNCED, SECRETS):
            found = self.cluster.get("v1", "Secret", place) or {}
            for name, content in (found.get("data") or {}).items():
                yield name, base64.b64decode(content).decode(errors="replace")

    def store_failure_report(self, name: str, text: str) -> str:
        """Write the evidence of a failed release; the command that shows it."""
        wanted: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"titanic-capsule-{name}", "labels": LABELS | {FAILURE_REPORT_LABEL: "true"}},
            "data": {"capsule.txt": text.encode()[:FAILURE_REPORT_BYTES].decode(errors="ignore")},
        }
        self.cluster.apply(wanted)
        kept = self.cluster.list("v1", "ConfigMap", **{FAILURE_REPORT_LABEL: "true"})
        for old in sorted(str(found["metadata"]["name"]) for found in kept)[:-FAILURE_REPORTS_KEPT]:
            self.cluster.delete("v1", "ConfigMap", old)
        place = f"--namespace {self.cluster.namespace} get configmap {wanted['metadata']['name']}"
        return f"kubectl {place} --output jsonpath='{{.data.capsule\\.txt}}'"

    def exclusively(self) -> AbstractContextManager[None]:
        """Nothing more than the lock: what is written replaces only what was read."""
        return nullcontext()


@contextmanager
def records_of(failure: Mapping[str, Any]) -> Iterator[ClusterRecords]:
    """The records of the ``cluster`` that a failure names, a module's option. Raises ClusterError."""
    with KubernetesClient.of(failure["cluster"]) as cluster:
        yield ClusterRecords(cluster)
