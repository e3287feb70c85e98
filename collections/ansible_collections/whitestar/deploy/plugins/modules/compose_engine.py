#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a Docker engine on the target, from the packages of its distribution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_engine
short_description: Keep a Docker engine from the distribution's packages
description:
  - Does nothing where an engine answers that is new enough and has its plugins for Compose and BuildKit, whoever
    installed it.
  - Otherwise installs engine, client and plugins with apt and starts the service. Debian 13 and Ubuntu 24.04 are the
    first releases whose packages are new enough; elsewhere it refuses and names the remedy.
  - Removes no package. It refuses where another engine than the distribution's is installed.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.engine
attributes:
  check_mode:
    description: Says what would be installed or started.
    support: full
  diff_mode:
    description: Lists the packages, and that the engine is started.
    support: full
"""

EXAMPLES = r"""
- name: Keep the engine
  whitestar.deploy.compose_engine:
    engine: {socket: /var/run/docker.sock, program: docker, project: titanic}
"""

RETURN = r"""
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [install docker.io, install docker-cli, start the engine]
planned:
  description: Whether there is no engine yet, because this was check mode.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.compose import (
    ENGINE_OPTION,
    Engine,
    EngineError,
    engine_problems,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.engine_packages import (
    Host,
    install,
    lasting_problems,
    start,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"engine": ENGINE_OPTION}, supports_check_mode=True)
    engine, host = Engine.of(module.params["engine"]), Host()
    steps: list[str] = []
    try:
        if engine_problems(engine):
            if refused := lasting_problems(engine, host):
                module.fail_json(msg="\n".join(refused))
            missing = host.missing()
            steps = [*(f"install {name}" for name in missing), "start the engine"]
            if not module.check_mode:
                if missing:
                    install(missing)
                start(engine)
                if left := engine_problems(engine):
                    module.fail_json(msg="\n".join(left))
    except EngineError as error:
        module.fail_json(msg=f"titanic_target_engine_install: {error}")
    module.exit_json(
        changed=bool(steps),
        steps=steps,
        planned=bool(steps) and module.check_mode,
        diff={"before": "", "after": "".join(f"{step}\n" for step in steps)},
    )


if __name__ == "__main__":
    main()
