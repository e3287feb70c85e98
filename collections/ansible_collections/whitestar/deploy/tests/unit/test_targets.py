# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A play has a host to deploy to, or says why not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible_collections.whitestar.deploy.plugins.lookup.targets import LookupModule

GROUPS = {"all": ["a", "b", "c"], "titanic": ["a", "b"], "web": ["c"], "none": []}


def look_up(group: str, **variables: Any) -> list[str]:
    found: list[str] = LookupModule(loader=DataLoader()).run([group], {"groups": GROUPS} | variables)
    return found


@pytest.mark.parametrize("limit", [None, "a", "all", "web,b", "@hosts.txt"])
def test_the_hosts_of_a_group_are_those_to_deploy_to(limit: str | None) -> None:
    assert look_up("titanic", ansible_limit=limit) == ["a", "b"], "Ansible itself leaves out what the limit does"


@pytest.mark.parametrize("group", ["none", "titanics"])
def test_a_group_without_hosts_is_refused_with_the_remedy(group: str) -> None:
    with pytest.raises(AnsibleLookupError, match=f"no host is in the group {group}.*Name an inventory that has one"):
        look_up(group)


@pytest.mark.parametrize("limit", ["web", "all:!titanic", "c"])
def test_a_limit_that_leaves_no_host_is_refused_with_those_there_are(limit: str) -> None:
    with pytest.raises(AnsibleLookupError, match=r"leaves no host of the group titanic.*\(a, b\)"):
        look_up("titanic", ansible_limit=limit)
