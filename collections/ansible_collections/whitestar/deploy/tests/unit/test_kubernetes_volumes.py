# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantities are compared as what they are, and volumes are asked for where each kind has them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.volumes import amount, differ, with_volume


def server(size: str, **more: Any) -> dict[str, Any]:
    claim = {"resources": {"requests": {"storage": size}}, **more}
    return {"kind": "StatefulSet", "spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}]}}


@pytest.mark.parametrize(
    ("quantity", "number"),
    [("1Gi", 2**30), ("1024Mi", 2**30), ("1.5Ki", 1536), ("2G", 2 * 10**9), ("1e3", 1000), ("500m", 0.5), ("7", 7)],
)
def test_a_quantity_is_a_number(quantity: str, number: float) -> None:
    assert amount(quantity) == number


@pytest.mark.parametrize("text", ["", "2GB", "1 Gi", "Gi", "-1Gi", "10gi", "1e"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no quantity\. Write it as 10Gi"):
        amount(text)


def test_only_another_size_or_class_is_a_difference() -> None:
    assert not differ(server("1Gi", volumeMode="Filesystem"), server("1024Mi"))
    assert differ(server("1Gi"), server("2Gi"))
    assert differ(server("1Gi"), server("1Gi", storageClassName="fast"))
    assert not differ({"spec": {}}, server("1Gi")), "a template that is new is no other one"


def test_what_is_asked_for_is_put_where_each_kind_has_it() -> None:
    assert with_volume(server("1Gi", storageClassName="slow"), "2Gi", None) == server("2Gi")
    assert with_volume(server("1Gi"), "2Gi", "fast") == server("2Gi", storageClassName="fast")
    operated = {"kind": "Cluster", "spec": {"instances": 3, "storage": {"size": "1Gi", "storageClass": "fast"}}}
    assert with_volume(operated, "2Gi", None)["spec"]["storage"] == {"size": "2Gi", "storageClass": "fast"}
    assert with_volume({"kind": "StatefulSet", "spec": {}}, "2Gi", None) == {"kind": "StatefulSet", "spec": {}}
