#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a PostgreSQL cluster, one database and its two roles on a local target."""

from __future__ import annotations

DOCUMENTATION = r"""
module: local_database
short_description: Keep a PostgreSQL cluster, a database and its two roles
description:
  - Makes the cluster if there is none, keeps its configuration, starts it if it does not run, and keeps one database
    with an owner role, which migrates, and an application role, which the owner lets read and write rows.
  - The server listens on a unix socket only. Run as root, it drops to O(account).
  - Passwords are read from files and reach the server only as SCRAM verifiers.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.twins.database]
options:
  directory: {description: "Directory of the data, the socket and the logs.", type: path, required: true}
  bindir: {description: "Directory of PostgreSQL's programs, version 15 or later.", type: path, required: true}
  account: {description: Account to run as instead of root., type: str, required: true}
  settings: {description: Server settings that replace ours or add to them., type: dict, default: {}}
  backup_settings_file:
    description: >-
      File with the settings of backups that are off now. It is removed, and with it what marks releases and tells of
      what is overdue.
    type: path
attributes:
  check_mode:
    description: Says what would change. What a server that does not run would say is not known, and said so.
    support: full
  diff_mode: {description: Shows each step that is needed., support: full}
"""

EXAMPLES = r"""
- name: Configure the PostgreSQL cluster, the database and its roles
  whitestar.deploy.local_database:
    directory: /var/lib/titanic/database
    bindir: /usr/lib/postgresql/17/bin
    account: nobody
    database: titanic
    owner: titanic_owner
    owner_password_file: /var/lib/titanic/secrets/database_owner_password
    user: titanic_app
    user_password_file: /var/lib/titanic/secrets/database_app_password
"""

RETURN = r"""
socket_directory: {description: Where the server listens., returned: success, type: str}
steps: {description: "What was done, in words.", returned: success, type: list, elements: str}
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import exclusively
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.host.rotation import record_reached, rotation_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError, PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import roles


def ensure_server(cluster: PostgresServer, settings: dict[str, Any], *, check: bool) -> list[str]:
    """Have the server run with this configuration, or say what that would take. Returns the steps in words."""
    stale = cluster.stale_files(settings)
    running = cluster.running()
    steps = [f"write {', '.join(path.name for path in stale)}"] if stale else []
    if not check:
        cluster.write_files(stale, settings)
    if not running:
        if not check:
            cluster.start()
        return [*steps, "start PostgreSQL"]
    why = []
    if stale and not check:
        cluster.reload()
        why = cluster.pending_restart()
    if (wanted := cluster.version()) != cluster.running_version():
        why.append(f"version {wanted}")
    if why and not check:
        cluster.stop()
        cluster.start()
    return [*steps, f"restart PostgreSQL for {', '.join(why)}"] if why else steps


def ensure_database(cluster: PostgresServer, options: dict[str, Any], *, check: bool) -> list[str]:
    """Bring everything to where it should be, or say what that would take. Returns the steps in words."""
    if cluster.exists():
        cluster.check_major()
        steps = []
    else:
        steps = ["make the cluster"]
        if check:
            return [*steps, "start PostgreSQL", "make the roles and the database"]
        cluster.make()
    left = Path(options["backup_settings_file"] or "/nonexistent")
    if left.exists():
        steps.append("turn backups off")
        if not check:
            left.unlink()
    if not options["finish"]:
        steps += ensure_server(cluster, options["settings"], check=check)
    if check and not cluster.running():
        return steps
    rotation = rotation_of(options)
    steps += roles.ensure_roles(
        cluster,
        options,
        roles.read_passwords(options, rotation.logins),
        retired=[f"{options['user']}{login}" for login in rotation.retired],
        granted=roles.last_grants(options["answer_file"]),
        check=check,
    )
    if not check:
        record_reached(options)
    return steps


def main() -> None:
    """Run the module."""
    path = {"type": "path", "required": True}
    module = AnsibleModule(
        argument_spec=roles.OPTIONS
        | {
            "directory": path,
            "bindir": path,
            "account": roles.TEXT,
            "backup_settings_file": {"type": "path"},
            "settings": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        cluster = PostgresServer(Path(options["directory"]), Path(options["bindir"]), unprivileged(options["account"]))
        if not (module.check_mode and not cluster.bindir.exists()):
            cluster.major()
        if module.check_mode:
            steps = ensure_database(cluster, options, check=True)
        else:
            with exclusively(cluster.directory):
                steps = ensure_database(cluster, options, check=False)
    except (DatabaseError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**roles.result(steps), socket_directory=str(cluster.socket_directory))


if __name__ == "__main__":
    main()
