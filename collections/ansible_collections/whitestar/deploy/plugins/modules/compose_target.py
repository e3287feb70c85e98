#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the place for a Compose deployment: its directory and, if asked for, the engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_target
short_description: Keep the state directory and a Docker engine from the distribution's packages
description:
  - Makes the state directory, which others may enter and not write to.
  - With O(install), does nothing to an engine that answers, is new enough and has its plugins for Compose and BuildKit,
    whoever installed it.
  - Otherwise installs engine, client and plugins with apt and starts the service. Debian 13 and Ubuntu 24.04 are the
    first releases whose packages are new enough; elsewhere it refuses and names the remedy.
  - Removes no package. It refuses where another engine than the distribution's is installed.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.engine
options:
  state_directory: {description: The directory that holds everything of the deployment., type: path, required: true}
  install: {description: Whether an engine that is missing is installed., type: bool, default: false}
attributes:
  check_mode: {description: Says what would be installed or started., support: full}
  diff_mode: {description: "Lists the directory, the packages, and that the engine is started.", support: full}
"""

EXAMPLES = r"""
- name: Ensure the state directory and the engine
  whitestar.deploy.compose_target:
    state_directory: /var/lib/titanic
    install: true
    engine: {socket: /var/run/docker.sock, program: docker, project: titanic}
"""

RETURN = r"""
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [install docker.io, install docker-cli, start the engine, make /var/lib/titanic]
planned: {description: "Whether there is no engine yet, because this was check mode.", returned: success, type: bool}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import make_directory
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    DockerClient,
    EngineError,
    engine_problems,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.packages import (
    Host,
    install,
    lasting_problems,
    start,
)

MODE = 0o755


def ensure_engine(engine: DockerClient, host: Host, *, check: bool) -> list[str]:
    """What was done, or would be, for an engine to answer that is new enough. Raises EngineError if none can.

    Raises ValueError for what keeps it from that, in sentences that name their variable.
    """
    if not engine_problems(engine):
        return []
    if refused := lasting_problems(engine, host):
        raise ValueError("\n".join(refused))
    missing = host.missing()
    if not check:
        if missing:
            install(missing)
        start(engine)
        if left := engine_problems(engine):
            raise ValueError("\n".join(left))
    return [*(f"install {name}" for name in missing), "start the engine"]


def ensure_directory(directory: Path, *, check: bool) -> list[str]:
    """What was done, or would be, for the directory to be there. Raises OSError if it cannot be."""
    if directory.is_dir() and directory.stat().st_mode & 0o7777 == MODE:
        return []
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is not a directory. Move it away or choose another.")
    if not check:
        make_directory(directory, MODE)
    return [f"make {directory}"]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "engine": DockerClient.OPTION,
            "state_directory": {"type": "path", "required": True},
            "install": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    engine, check = DockerClient.of(module.params["engine"]), module.check_mode
    installed: list[str] = []
    try:
        if module.params["install"]:
            installed = ensure_engine(engine, Host(), check=check)
        steps = installed + ensure_directory(Path(module.params["state_directory"]), check=check)
    except ValueError as error:
        module.fail_json(msg=str(error))
    except EngineError as error:
        module.fail_json(msg=f"titanic_engine_install: {error}")
    except OSError as error:
        module.fail_json(msg=f"titanic_state_directory: {error}")
    module.exit_json(
        changed=bool(steps),
        steps=steps,
        planned=bool(installed) and check,
        diff={"before": "", "after": "".join(f"{step}\n" for step in steps)},
    )


if __name__ == "__main__":
    main()
