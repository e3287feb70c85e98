# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes of what keeps data in a cluster: they grow where their class lets them, and nothing else of them changes.

Kubernetes lets nobody change the templates of a StatefulSet's claims. So the claims are grown themselves, and the
StatefulSet is made anew with templates that say the same, while its pods serve on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import (
    MERGE,
    ClusterError,
    KubernetesClient,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object

TEMPLATES = "volumeClaimTemplates"
# Of what each may want another: the path in a claim.
SIZE, CLASS = "storage", "storageClassName"
QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:([KMGTPE]i)|([mkMGTPE])|[eE]([+-]?\d+))?")
BINARY = {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}
DECIMAL = {"m": Decimal("0.001")} | {letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)}
GONE_SECONDS = 60
POLL_SECONDS = 0.2


class VolumeError(ClusterError):
    """A volume cannot be as it is wanted; ``what`` is SIZE or CLASS."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message, 422)
        self.what = what


class Wanted(NamedTuple):
    """The claims of one template: which they are, what they ask for, and what they asked for before."""

    claims: list[Object]
    size: str
    storage_class: str | None
    size_before: str | None


def amount(quantity: str) -> Decimal:
    """A quantity of Kubernetes, such as ``1.5Gi``, as a number. Raises ValueError."""
    found = QUANTITY.fullmatch(str(quantity).strip())
    if not found:
        raise ValueError(f"'{quantity}' is no quantity. Write it as 10Gi.")
    number, binary, letter, power = found.groups()
    return Decimal(number) * BINARY.get(binary, 1) * DECIMAL.get(letter, 1) * Decimal(10) ** int(power or 0)


def differ(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether the templates of a StatefulSet's claims ask for another size or class than they do now."""
    now, then = _asked(before), _asked(wanted)
    return any(name in now and now[name] != then[name] for name in then)


def _asked(thing: Mapping[str, Any]) -> dict[str, tuple[Decimal, str | None]]:
    """What each template asks for."""
    return {
        template["metadata"]["name"]: (amount(_size(template)), template["spec"].get(CLASS))
        for template in thing["spec"].get(TEMPLATES) or []
    }


def _size(claim: Mapping[str, Any]) -> str:
    return str(claim["spec"]["resources"]["requests"][SIZE])


def with_volume(thing: Object, size: str, storage_class: str | None) -> Object:
    """A StatefulSet or a Cluster of CloudNativePG whose volumes have this size and class."""
    spec = thing["spec"]
    if thing["kind"] == "Cluster":
        return thing | {"spec": spec | {"storage": spec["storage"] | {"size": size}}}
    templates = []
    for template in spec.get(TEMPLATES) or []:
        own = {key: value for key, value in template["spec"].items() if key != CLASS}
        own |= {"resources": {"requests": {SIZE: size}}} | ({CLASS: storage_class} if storage_class else {})
        templates.append(template | {"spec": own})
    return thing | {"spec": spec | ({TEMPLATES: templates} if templates else {})}


def fit(cluster: KubernetesClient, before: Object | None, wanted: Object, *, check: bool) -> None:
    """Have the claims that are there be as large as ``wanted`` says, or learn that they can be.

    Raises VolumeError for the first that cannot be.
    """
    for part in _parts(cluster, before, wanted):
        for claim in part.claims:
            _fit(cluster, claim, part, check=check)


def _parts(cluster: KubernetesClient, before: Object | None, wanted: Object) -> Iterator[Wanted]:
    """The claims that are there, by what asks for them."""
    name = wanted["metadata"]["name"]
    if wanted["kind"] == "Cluster":
        now = str(before["spec"]["storage"]["size"]) if before else None
        claims = cluster.list("v1", "PersistentVolumeClaim", **{"cnpg.io/cluster": name, "cnpg.io/pvcRole": "PG_DATA"})
        yield Wanted(claims, str(wanted["spec"]["storage"]["size"]), None, now)
        return
    asked = {
        template["metadata"]["name"]: _size(template) for template in (before or {}).get("spec", {}).get(TEMPLATES, [])
    }
    found = cluster.list("v1", "PersistentVolumeClaim")
    for template in wanted["spec"].get(TEMPLATES) or []:
        own = template["metadata"]["name"]
        of_it = re.compile(rf"{re.escape(own)}-{re.escape(name)}-\d+")
        claims = [claim for claim in found if of_it.fullmatch(claim["metadata"]["name"])]
        yield Wanted(claims, _size(template), template["spec"].get(CLASS), asked.get(own))


def _fit(cluster: KubernetesClient, claim: Object, wanted: Wanted, *, check: bool) -> None:
    name, now, of = claim["metadata"]["name"], _size(claim), claim["spec"].get(CLASS)
    if wanted.storage_class and of != wanted.storage_class:
        remedy = f"Set it to {of}, or dump the data and load them into a new deployment."
        raise VolumeError(CLASS, f"the volume {name} is of the class {of}, which no volume changes. {remedy}")
    # Who has grown one by hand need not say so.
    if wanted.size_before and amount(wanted.size) < amount(wanted.size_before):
        remedy = f"Set it to {wanted.size_before} or more, or dump the data and load them into a new deployment."
        raise VolumeError(SIZE, f"the volume {name} has {now}, and none gets smaller. {remedy}")
    if amount(wanted.size) <= amount(now):
        return
    change = {"spec": {"resources": {"requests": {SIZE: wanted.size}}}}
    try:
        where = cluster.address("v1", "PersistentVolumeClaim", name)
        cluster.request("PATCH", where, change, MERGE, **({"dryRun": "All"} if check else {}))
    except ClusterError as error:
        if not error.status:
            raise
        remedy = f"Set it to {now}, or have the storage class {of} allow it (allowVolumeExpansion)."
        raise VolumeError(SIZE, f"the volume {name} has {now} and cannot grow ({error}). {remedy}") from error


def let_go(cluster: KubernetesClient, wanted: Object) -> None:
    """Remove a StatefulSet and leave its pods, which the one that is made next takes over. Raises ClusterError."""
    key = (wanted["apiVersion"], wanted["kind"], wanted["metadata"]["name"])
    cluster.request("DELETE", cluster.address(*key), {"propagationPolicy": "Orphan"})
    deadline = time.monotonic() + GONE_SECONDS
    while cluster.get(*key):
        if time.monotonic() > deadline:
            raise ClusterError(f"{key[1]} {key[2]} is not gone within {GONE_SECONDS} s. Run it again.")
        time.sleep(POLL_SECONDS)
