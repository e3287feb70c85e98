# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An account of a namespace gets a kubeconfig with a token that ends, and with it only what it may."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.modules.kubernetes_kubeconfig import until
from ansible_collections.whitestar.deploy.tests.cluster_helpers import Space

DAY_SECONDS = 86400


def test_twelve_steps(own_space: Space, tmp_path: Path) -> None:
    space, path = own_space, tmp_path / "kubeconfig"
    options: dict[str, Any] = {"account": "walker", "path": str(path), "days": 1}
    space.make({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "walker"}})
    planned = space.run("kubernetes_kubeconfig", check=True, **options)
    assert planned["changed"]
    assert not path.exists()
    made = space.run("kubernetes_kubeconfig", **options)
    assert made["changed"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert until(path) == pytest.approx(time.time() + DAY_SECONDS, abs=120)
    secret = json.loads(path.read_text())["users"][0]["user"]["token"]
    assert secret not in made.output
    for check in (True, False):
        assert not space.run("kubernetes_kubeconfig", check=check, **options)["changed"]
    # One that will end before half of the time is made anew.
    longer = options | {"days": 10}
    assert space.run("kubernetes_kubeconfig", check=True, **longer)["changed"]
    assert space.run("kubernetes_kubeconfig", **longer)["changed"]
    with (
        KubernetesClient(space.name, space.options["kubectl"], str(path)) as walker,
        pytest.raises(ClusterError, match="forbidden"),
    ):
        walker.list("v1", "Secret")
    refused = space.run("kubernetes_kubeconfig", account="nobody", path=str(tmp_path / "other"))
    assert refused["failed"]
    assert "there is no service account nobody" in refused["msg"]
