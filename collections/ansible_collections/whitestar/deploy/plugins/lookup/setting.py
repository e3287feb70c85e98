# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The value of a role's variable wherever the role's defaults are not in scope."""

from __future__ import annotations

DOCUMENTATION = r"""
name: setting
short_description: The value of a role's variable, or its default
description:
  - Returns a C(titanic_*) variable as the inventory sets it, otherwise the default of the role that it belongs to, so
    that a playbook can hand a value to another role and the default stays in one place.
version_added: 1.0.0
author: The Titanic team (@whitestar)
options:
  _terms:
    description: Names of variables.
    required: true
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Say the port
  ansible.builtin.debug:
    msg: "{{ lookup('whitestar.deploy.setting', 'titanic_api_port') }}"
"""

RETURN = r"""
_raw:
  description: The values.
  type: list
  elements: raw
"""

from functools import cache
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.lookup import LookupBase

ROLES = Path(__file__).resolve().parents[2] / "roles"


@cache
def defaults_of(role: str) -> dict[str, Any]:
    """The defaults of a role as its file has them, not to be changed; none where there is no such role."""
    path = ROLES / role / "defaults" / "main.yml"
    if not path.is_file():
        return {}
    # Without a copy of all of it for each value that is looked up.
    found: dict[str, Any] = DataLoader().load_from_file(str(path), unsafe=True, trusted_as_template=True)
    return found


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """The value of each name. Raises AnsibleLookupError for a name that no role has."""
        self.set_options(var_options=variables, direct=kwargs)
        return [self._value(term, variables or {}) for term in terms]

    def _value(self, name: str, variables: dict[str, Any]) -> Any:
        if name in variables:
            return self._templar.template(variables[name])
        role = "_".join(name.split("_")[:2])
        defaults = defaults_of(role)
        if name in defaults:
            # A default may rest on others of its role, which a play without that role does not know.
            scope = self._templar.copy_with_new_env(available_variables={**defaults, **variables})
            return scope.template(defaults[name])
        raise AnsibleLookupError(f"{name} is not set and role {role} has no default for it")
