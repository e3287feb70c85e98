#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the database and its two roles on the PostgreSQL of a Compose project."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_database
short_description: Keep database and roles in a Compose project's PostgreSQL
description:
  - Makes the role that migrates, the role that serves and their database, and lets only these two connect.
  - Works as the administrator within the container. Passwords reach the server as SCRAM verifiers only.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.engine, whitestar.deploy.twins.database]
options:
  service: {description: Service of the project that PostgreSQL runs as., type: str, default: database}
  backup_settings_file:
    description: >-
      File with the settings of backups that are off now. It is removed, and with it what marks releases and tells of
      what is overdue.
    type: path
attributes:
  check_mode: {description: Says which steps are needed; all of them while there is no server., support: full}
  diff_mode: {description: Lists the steps., support: full}
"""

EXAMPLES = r"""
- name: Configure the database and its roles
  whitestar.deploy.compose_database:
    engine: {socket: /var/run/docker.sock, program: docker, project: titanic}
    database: titanic
    owner: titanic_owner
    owner_password_file: /var/lib/titanic/secrets/database_owner_password
    user: titanic_app
    user_password_file: /var/lib/titanic/secrets/database_app_password
"""

RETURN = r"""
steps: {description: "What was done, in words.", returned: success, type: list, elements: str}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.psql import ContainerServer
from ansible_collections.whitestar.deploy.plugins.module_utils.host.rotation import record_reached, rotation_of
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import roles


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=roles.OPTIONS
        | {
            "engine": DockerClient.OPTION,
            "service": {"type": "str", "default": "database"},
            "backup_settings_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    options = module.params
    engine = DockerClient.of(options["engine"])
    steps = ["make the roles and the database"]
    try:
        running = [c for c in engine.containers(options["service"]) if c["State"]["Running"]]
        if running:
            server = ContainerServer(engine, str(running[0]["Id"]))
            rotation = rotation_of(options)
            steps = roles.ensure_roles(
                server,
                options,
                roles.read_passwords(options, rotation.logins),
                retired=[f"{options['user']}{login}" for login in rotation.retired],
                granted=roles.last_grants(options["answer_file"]),
                check=module.check_mode,
            )
            if not module.check_mode:
                record_reached(options)
        elif not module.check_mode:
            module.fail_json(msg=f"no container of {options['service']} runs. Run the whole site once.")
        left = Path(options["backup_settings_file"] or "/nonexistent")
        if left.exists():
            steps = ["turn backups off", *steps]
            if not module.check_mode:
                left.unlink()
    except (EngineError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**roles.result(steps))


if __name__ == "__main__":
    main()
