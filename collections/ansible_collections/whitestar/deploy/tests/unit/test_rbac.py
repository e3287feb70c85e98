# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployer is given is what it is asked for."""

from __future__ import annotations

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rbac import missing_permissions, rules


def test_what_a_deployer_is_given_is_what_it_is_asked_for() -> None:
    assert missing_permissions(rules()) == []
    assert missing_permissions([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]) == []
    assert "get/list/create/patch/delete jobs" in missing_permissions([])
    # One that is given for some names alone is none for those that we make.
    named = [rule | {"resourceNames": ["one"]} for rule in rules()]
    assert missing_permissions(named) == missing_permissions([])
    # An administrator's words for every kind's logs.
    logs = [rule for rule in rules() if "pods/log" not in rule["resources"]]
    assert missing_permissions(logs) == ["get/list pods/log", "get/list events"]
    some = {"apiGroups": [""], "resources": ["*/log", "events"], "verbs": ["get", "list"]}
    assert missing_permissions([*logs, some]) == []
