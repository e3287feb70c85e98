# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a token is read from it, and rights that are missing are named."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rbac import missing_permissions, rules
from ansible_collections.whitestar.deploy.plugins.modules.kubernetes_kubeconfig import until


def token(seconds: float) -> str:
    """One that ends so many seconds from now."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + seconds}).encode()).decode().rstrip("=")
    return f"head.{claims}.signature"


def config(path: Path, **user: Any) -> Path:
    path.write_text(json.dumps({"users": [{"name": "x", "user": user}]}))
    return path


def test_the_end_of_a_token_is_read(tmp_path: Path) -> None:
    assert until(config(tmp_path / "a", token=token(500))) == pytest.approx(time.time() + 500, abs=5)
    assert until(tmp_path / "missing") == 0
    assert until(config(tmp_path / "b", password="none")) == 0


def test_rights_that_are_given_are_all_that_is_needed() -> None:
    granted = [
        {"apiGroups": rule["apiGroups"], "resources": rule["resources"], "verbs": rule["verbs"]} for rule in rules()
    ]
    assert missing_permissions(granted) == []
    assert missing_permissions([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]) == []
    without = [rule for rule in granted if "deployments" not in rule["resources"]]
    assert missing_permissions(without) == [
        "get/list/create/patch/delete deployments",
        "get/list/create/patch/delete statefulsets",
    ]
    named = [rule | {"resourceNames": ["one"]} for rule in granted]
    assert len(missing_permissions(named)) > 10, "what is allowed for one name is not allowed"
