#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choose the recorded release to go back to, or refuse before anything is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_rollback_target
short_description: Choose the release to go back to
description:
  - Chooses the release before the one that serves, or the one that is named, from the ledger. Asks the live database
    whether its schema can serve it. Changes nothing.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment:
  [whitestar.deploy.engine, whitestar.deploy.twins.rollback_target, whitestar.deploy.twins.target]
attributes:
  check_mode: {description: The module never changes anything., support: full}
  diff_mode: {description: There is nothing to compare., support: none}
"""

EXAMPLES = r"""
- name: Select the release
  whitestar.deploy.host_rollback_target:
    state_directory: /var/lib/titanic
  register: target
"""

RETURN = r"""
entry: {description: The ledger entry to go back to., returned: success, type: dict}
serving: {description: The release that serves now., returned: success, type: str}
"""

import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import ComposeRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.runtime import Runtime, recorded_workload
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import LocalRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import (
    Ledger,
    LiveSchema,
    RollbackRefusedError,
)

CHECK_SECONDS = 20


def live_schema(state: State, host: Runtime, ledger: Ledger) -> LiveSchema:
    """The live schema, as the serving release reads it. Raises RollbackRefusedError if the database does not say."""
    workload = recorded_workload(state, host, ledger.current())
    command = [workload["command"][0], "check"]
    _, said, complaint = host.execute(
        workload["image"], command, workload["environment"], workload["secret_files"], CHECK_SECONDS
    )
    return LiveSchema.of_check(said, complaint)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state_directory": {"type": "path", "required": True},
            "engine": DockerClient.OPTION,
            "release": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    state = State(Path(module.params["state_directory"]))
    wanted, engine = module.params["release"], module.params["engine"]
    try:
        host: Runtime = ComposeRuntime(DockerClient.of(engine), state) if engine else LocalRuntime(state)
        ledger = state.ledger()
        ledger.rollback_target(wanted, LiveSchema())
        entry = ledger.rollback_target(wanted, live_schema(state, host, ledger))
        recorded_workload(state, host, entry)
    except (RollbackRefusedError, ReleaseError, EngineError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=f"rollback refused, nothing was touched: {error}")
    current = ledger.current()
    module.exit_json(changed=False, entry=vars(entry), serving=current.release if current else "")


if __name__ == "__main__":
    main()
