# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployer is given is what it is asked for."""

from __future__ import annotations

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rbac import lacking, rules


def test_what_a_deployer_is_given_is_what_it_is_asked_for() -> None:
    assert lacking(rules()) == []
    assert lacking([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]) == []
    assert "get/list/create/patch/delete jobs" in lacking([])
    # One that is given for some names alone is none for those that we make.
    named = [rule | {"resourceNames": ["one"]} for rule in rules()]
    assert lacking(named) == lacking([])
    # An administrator's words for every kind's logs.
    logs = [rule for rule in rules() if "pods/log" not in rule["resources"]]
    assert lacking(logs) == ["get/list pods/log", "get/list events"]
    some = {"apiGroups": [""], "resources": ["*/log", "events"], "verbs": ["get", "list"]}
    assert lacking([*logs, some]) == []
