#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that the newest backup of a local target restores to what the live database has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: local_drill
short_description: Restore the newest backup beside what serves, and compare
description:
  - Reads all that is in the repository, restores the newest backup into an instance of its own up to the newest WAL,
    compares each table (rows and SHA-256 in order) with what the live database said at that moment, and checks heaps
    and indexes with C(pg_amcheck). What serves is not touched but for a lock of at most 200 ms.
  - Fails where anything differs or is damaged. Either way the ledger has the result.
version_added: 1.1.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.twins.target]
options:
  database:
    description: Name of the database.
    type: str
    required: true
  settings:
    description: Server settings of the database.
    type: dict
    default: {}
  by:
    description: Who runs this, for the ledger.
    type: str
    required: true
attributes:
  check_mode:
    description: Nothing is restored, and nothing is said of the backups.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: Run the drill
  whitestar.deploy.local_drill:
    state_directory: /var/lib/titanic
    database: titanic
    by: alice@laptop
"""

RETURN = r"""
drill:
  description: >-
    C(backup), C(lsn), rows by C(tables), C(rpo_seconds) (how old the newest write was that no repository had) and
    C(rto_seconds) (how long it took until the restored database answered).
  returned: success
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.drill import Drill
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import BackupError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state_directory": {"type": "path", "required": True},
            "database": {"type": "str", "required": True},
            "settings": {"type": "dict", "default": {}},
            "by": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    state = State(Path(options["state_directory"]))
    found: dict[str, Any] = {}
    try:
        repository = Repository.needed(state)
        if module.check_mode:
            module.exit_json(changed=False, drill={})
        with state.exclusively():
            try:
                found = Drill(repository, options["database"], options["settings"]).run()
            except (BackupError, DatabaseError, OSError, ValueError) as error:
                facts = {"outcome": "failed", "reason": str(error)[:500], "by": options["by"]}
                state.write_ledger(state.ledger().with_event("drill", **facts))
                raise
            state.write_ledger(state.ledger().with_event("drill", outcome="succeeded", by=options["by"], **found))
    except (BackupError, DatabaseError, OSError, ValueError) as error:
        module.fail_json(msg=f"the drill failed, what serves was not touched: {error}")
    module.exit_json(changed=True, drill=found)


if __name__ == "__main__":
    main()
