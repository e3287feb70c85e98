# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts that a play deploys to, of which there has to be one."""

from __future__ import annotations

DOCUMENTATION = r"""
name: targets
short_description: The hosts of a group, of which there has to be one
description:
  - Returns the hosts of a group, for the C(hosts) of a play. Where there is none, or C(--limit) leaves none, it fails
    with the remedy. Ansible itself skips such a play and ends well, so that a mistyped inventory looks like a
    deployment.
version_added: 1.0.0
author: The Titanic team (@whitestar)
options:
  _terms: {description: Name of the group., required: true, type: list, elements: str}
"""

EXAMPLES = r"""
- name: Deploy
  hosts: "{{ query('whitestar.deploy.targets', 'titanic') }}"
"""

RETURN = r"""
_raw: {description: Names of hosts., type: list, elements: str}
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.plugins.lookup.inventory_hostnames import LookupModule as InventoryHostnames


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **_: Any) -> list[Any]:
        """The hosts of the groups. Raises AnsibleLookupError where there is none."""
        known = variables or {}
        groups = known.get("groups") or {}
        found = [str(host) for group in terms for host in groups.get(group, [])]
        if not found:
            raise AnsibleLookupError(
                f"no host is in the group {', '.join(terms)}, so that nothing would be deployed. "
                "Name an inventory that has one (-i), such as inventories/local."
            )
        limit = known.get("ansible_limit")
        # A file of names (@) is left to Ansible.
        if limit and "@" not in limit and not set(found) & set(self._matching(limit, known)):
            raise AnsibleLookupError(
                f"--limit {limit} leaves no host of the group {', '.join(terms)}, so that nothing would be deployed. "
                f"Name some of its hosts ({', '.join(found)})."
            )
        return found

    def _matching(self, pattern: str, variables: dict[str, Any]) -> list[str]:
        """The hosts that a pattern as of ``--limit`` leaves of all."""
        names: list[str] = InventoryHostnames(loader=self._loader).run([pattern], variables)
        return names
