# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who made a namespace is what the cluster has noted, and which names are ours is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.ownership import NAMES, made_by_us

ROLES = Path(__file__).resolve().parents[2] / "roles"


def namespace(*managers: str) -> dict[str, Any]:
    """One that the first of these made, and the others labelled."""
    named: dict[str, Any] = {"f:metadata": {"f:labels": {".": {}, "f:kubernetes.io/metadata.name": {}}}}
    labelled: dict[str, Any] = {"f:metadata": {"f:labels": {"f:team": {}}}}
    trees = [named, *(labelled for _ in managers[1:])]
    managed = [
        {"manager": manager, "operation": "Update", "time": f"2026-01-0{day}T00:00:00Z", "fieldsV1": tree}
        for day, (manager, tree) in enumerate(zip(managers, trees, strict=True), 1)
    ]
    return with_fields(managed)


def with_fields(managed: list[dict[str, Any]]) -> dict[str, Any]:
    """A namespace with a label of ours and these notes of who wrote what."""
    labels = {"kubernetes.io/metadata.name": "shop", "app.kubernetes.io/managed-by": "whitestar.deploy"}
    return {"metadata": {"name": "shop", "labels": labels, "managedFields": managed}}


@pytest.mark.parametrize(
    ("managers", "ours"),
    [
        (("whitestar.deploy",), True),
        (("whitestar.deploy", "kubectl-label"), True),
        (("kubectl-create",), False),
        (("kubectl-create", "whitestar.deploy"), False),
    ],
)
def test_who_made_a_namespace_is_no_matter_of_labels(managers: tuple[str, ...], ours: bool) -> None:
    assert made_by_us(namespace(*managers)) is ours


@pytest.mark.parametrize(
    ("managers", "ours"),
    [
        ({"whitestar.deploy": "Apply"}, True),
        ({"whitestar.deploy": "Apply", "kubectl-label": "Update"}, True),
        ({"argocd-controller": "Apply"}, False),
        ({"argocd-controller": "Apply", "whitestar.deploy": "Apply"}, False),
        ({}, False),
    ],
)
def test_who_made_a_namespace_by_server_side_apply_is_who_alone_applies_it(
    managers: dict[str, str], ours: bool
) -> None:
    tree: dict[str, Any] = {"f:metadata": {"f:labels": {"f:team": {}}}}
    managed = [
        {"manager": manager, "operation": operation, "time": "2026-01-01T00:00:00Z", "fieldsV1": tree}
        for manager, operation in managers.items()
    ]
    assert made_by_us(with_fields(managed)) is ours


def test_every_object_of_the_roles_has_a_name_that_is_known_as_ours() -> None:
    texts = "".join(path.read_text() for path in ROLES.glob("*/templates/*.yml.j2"))
    names = set(re.findall(r"^(?:metadata: {|  )name: (titanic[a-z-]*)[,}\n]", texts, re.MULTILINE))
    assert len(names) > 10
    assert {name for name in names if not NAMES.fullmatch(name)} <= {"titanic-deployer"}
