#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the database of a local target back to a moment: planned beside what serves, then switched to."""

from __future__ import annotations

DOCUMENTATION = r"""
module: local_restore
short_description: Restore the database of a local target to a moment
description:
  - With O(state=planned) restores into a directory beside the database that serves, verifies that, and says what a
    switch would lose in rows and seconds. What serves is not touched.
  - With O(state=switched) begins a maintenance, stops the release, and has the two directories change places in one
    step. What served is kept. The release is started by M(whitestar.deploy.host_release), which RV(plan) names.
  - With O(state=discarded) removes data that restores have replaced, with O(state=absent) what was planned.
version_added: 1.1.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.twins.target]
options:
  state:
    description: Whether to plan, to switch, to forget what was replaced, or what was planned.
    type: str
    choices: [planned, switched, discarded, absent]
    required: true
  to:
    description: >-
      V(latest), a time with its zone, C(release NAME) for the moment before that release, the name of a restore point,
      or V(previous) for the data that the last restore replaced.
    type: str
    default: ""
  system:
    description: Identifier of another database whose backups the repository holds, to have that one restored.
    type: str
    default: ""
  settings:
    description: Server settings of the database.
    type: dict
    default: {}
  archiving:
    description: Those of them that archive WAL, which a restored database has only once it serves.
    type: dict
    default: {}
  database:
    description: Name of the database. This and what follows is needed to plan; a switch does what was planned.
    type: str
  owner:
    description: The role that owns the database.
    type: str
  owner_password_file:
    description: File with its password.
    type: path
  user:
    description: The application role.
    type: str
  user_password_file:
    description: File with its password.
    type: path
  drain:
    description: Whether the maintenance begins before the plan is made, so that nothing is written any more.
    type: bool
    default: false
  drain_seconds:
    description: How long requests that are being answered may take, in seconds.
    type: float
    default: 25
  by:
    description: Who runs this, for the ledger.
    type: str
    default: somebody
attributes:
  check_mode:
    description: Says whether it could be done, without the rows that it would lose.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: Ensure that the moment can be restored
  whitestar.deploy.local_restore:
    state_directory: /var/lib/titanic
    state: planned
    to: 2026-11-30T12:00:00Z
    database: titanic
    owner: titanic_owner
    owner_password_file: /var/lib/titanic/secrets/database_owner_password
    user: titanic_app
    user_password_file: /var/lib/titanic/secrets/database_app_password
    by: alice@laptop
"""

RETURN = r"""
plan:
  description: >-
    C(to), C(backup), C(reached) (the last commit that is there), C(lost_seconds), C(lost_rows) and C(rows) by table,
    C(entry) and C(release) (the ledger's entry that fits the schema of that moment), C(serves_now), C(kept).
  returned: success
  type: dict
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.local.restore import Restore
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import PREVIOUS, BackupError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import redacted

PLANNED = ("to", "database", "owner", "owner_password_file", "user", "user_password_file")


def act(restore: Restore, *, check: bool) -> tuple[bool, dict[str, Any]]:
    """Whether anything changed, and the plan. Raises BackupError, DatabaseError, OSError, ReleaseError, ValueError."""
    state, wanted = restore.options["state"], restore.options["to"]
    if state == "discarded":
        names = restore.discard(check=check)
        return bool(names), {"discarded": names}
    if state == "absent":
        return (False, {}) if check else (restore.clear(), {})
    if state == "planned" and wanted == PREVIOUS:
        return False, restore.plan_way_back(check=check)
    if state == "planned":
        if check:
            recovery = restore.check(archived=not restore.running())
            return False, {"to": wanted, "backup": recovery.chain[-1].label}
        return False, restore.plan()
    return (True, {}) if check else (True, restore.switch())


def main() -> None:
    """Run the module."""
    text, path = {"type": "str", "required": True}, {"type": "path", "required": True}
    module = AnsibleModule(
        argument_spec={
            "state_directory": path,
            "state": text | {"choices": ["planned", "switched", "discarded", "absent"]},
            "to": {"type": "str", "default": ""},
            "system": {"type": "str", "default": ""},
            "settings": {"type": "dict", "default": {}},
            "archiving": {"type": "dict", "default": {}},
            "database": {"type": "str"},
            "owner": {"type": "str"},
            "owner_password_file": {"type": "path", "no_log": False},
            "user": {"type": "str"},
            "user_password_file": {"type": "path", "no_log": False},
            "drain": {"type": "bool", "default": False},
            "drain_seconds": {"type": "float", "default": 25},
            "by": {"type": "str", "default": "somebody"},
        },
        required_if=[("state", "planned", PLANNED)],
        supports_check_mode=True,
    )
    state = State(Path(module.params["state_directory"]))
    try:
        repository = Repository.needed(state)
        with nullcontext() if module.check_mode else state.exclusively():
            changed, plan = act(Restore(repository, module.params), check=module.check_mode)
    except (BackupError, DatabaseError, ReleaseError, OSError, ValueError) as error:
        what = "the switch failed" if module.params["state"] == "switched" else "nothing was touched"
        module.fail_json(msg=f"restore refused, {what}: {redacted(state, str(error))}")
    module.exit_json(changed=changed, plan=plan)


if __name__ == "__main__":
    main()
