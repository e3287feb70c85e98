#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have the reverse proxy of a host answer everything itself with a message, or pass everything on again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_maintenance
short_description: Begin or end the maintenance of a host
description:
  - With O(enabled=true) the reverse proxy answers every request with 503, C(Retry-After) and a message, as a problem
    document (RFC 9457) or, for browsers, as a page. Requests that it has passed on before are finished.
  - With O(enabled=false) it passes everything on again. Neither reloads anything or closes a connection.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.twins.maintenance, whitestar.deploy.twins.target]
options:
  drain_seconds:
    description: How long the requests that are being answered are waited for, in seconds.
    type: float
    default: 25
attributes:
  check_mode: {description: "Says whether it would begin, end or change.", support: full}
  diff_mode: {description: Compares the messages., support: full}
"""

EXAMPLES = r"""
- name: Start the maintenance
  whitestar.deploy.host_maintenance:
    state_directory: /var/lib/titanic
    enabled: true
    message: The database moves; back at 14:00 UTC.
    by: alice@laptop
"""

RETURN = r"""
maintenance:
  description: Who began it, when, with which message; empty when there is none.
  returned: success
  type: dict
"""

import http.client
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.host import maintenance
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.maintenance import result, wanted
from ansible_collections.whitestar.deploy.plugins.module_utils.release.options import MAINTENANCE


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=MAINTENANCE
        | {
            "state_directory": {"type": "path", "required": True},
            "drain_seconds": {"type": "float", "default": 25},
        },
        supports_check_mode=True,
    )
    options = module.params
    state = State(Path(options["state_directory"]))
    try:
        if state.ledger().current() is None:
            module.fail_json(msg=f"nothing is deployed in {state.root}. Run the whole site first.")
        now = maintenance.current(state)
        then = wanted(options, now)
        if not module.check_mode:
            if then:
                # Also one that an earlier run began and did not see through.
                maintenance.begin(then, state)
                if left := maintenance.wait_until_idle(state, options["drain_seconds"]):
                    module.warn(f"{left} requests are still being answered after {options['drain_seconds']:g} s")
            else:
                maintenance.end(state)
    except (OSError, ValueError, http.client.HTTPException) as error:
        module.fail_json(msg=f"the reverse proxy's maintenance: {error}")
    module.exit_json(**result(now, then))


if __name__ == "__main__":
    main()
