#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what differs on a host from what was applied there, by path, and who did it when as far as the host knows."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_drift_info
short_description: Say what differs on a host from what was applied
description:
  - Finds files of ours that were edited or are gone, secrets that others may read, and processes or containers that do
    not run, are not what was recorded, or should not run.
  - Compares the attributes of the database's two roles, who owns what, grants, the schema's revision and what was
    seeded. What users do to rows is no part of that.
  - A host knows whose a file is and when it was changed, and whose a process is. An engine knows when a container was
    made or stopped, and not by whom.
  - Of secrets only names are told.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.engine, whitestar.deploy.twins.target]
options:
  account: {description: Account that PostgreSQL runs as instead of root. Needed without O(engine)., type: str}
  bindir: {description: Directory of PostgreSQL's programs. Needed without O(engine)., type: path}
  database:
    description: The database that the deployment runs itself. Without it none is looked at.
    type: dict
    suboptions:
      database: {description: Name of the database., type: str, required: true}
      owner: {description: Role that owns it and migrates., type: str, required: true}
      user: {description: Role that serves., type: str, required: true}
attributes:
  check_mode: {description: It changes nothing in any mode., support: full}
  diff_mode: {description: There is nothing that it changes., support: none}
"""

EXAMPLES = r"""
- name: Gather the differences
  whitestar.deploy.host_drift_info:
    state_directory: /var/lib/titanic
    account: nobody
    bindir: /usr/lib/postgresql/17/bin
    database: {database: titanic, owner: titanic_owner, user: titanic_app}
"""

RETURN = r"""
differences:
  description: What differs.
  returned: success
  type: list
  elements: dict
  contains:
    what: {description: "The file, process, container or part of the database.", type: str}
    path: {description: The part of it; empty for all of it., type: str}
    applied: {description: What was applied; none where something was added., type: raw}
    live: {description: What is there; none where something is gone., type: raw}
    said: {description: "What is said in the place of values that may not be told, or are none.", type: str}
    by: {description: Whose it is; empty if nothing knows., type: str}
    at: {description: When; empty if nothing knows., type: str}
    text: {description: All of that in one line., type: str}
said: {description: "All of that for people, in lines.", returned: success, type: list, elements: str}
unknown: {description: "What could not be compared, and why.", returned: success, type: list, elements: str}
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import Difference
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.drift import containers_drift
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.psql import ContainerServer
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import ComposeRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.drift import answers, files_drift, release_drift
from ansible_collections.whitestar.deploy.plugins.module_utils.host.runtime import Runtime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.drift import processes_drift
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError, PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import LocalRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.drift import database_drift, untold
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import Server
from ansible_collections.whitestar.deploy.plugins.module_utils.release.drift import summary, told
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import Lock
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import PASSWORD

OWNER = "database_owner_password"


def gather(state: State, options: Mapping[str, Any]) -> tuple[list[Difference], list[str]]:
    """What differs, and what could not be compared. Raises OSError, ValueError, EngineError, DatabaseError."""
    current = state.ledger().current() if state.root.is_dir() else None
    if current is None:
        why = "nothing is recorded in it: all of it is gone, or nothing has been deployed"
        return [Difference(f"directory {state.root}", said=why)], []
    if stopped := state.stopped():
        return [stopped.difference(f"directory {state.root}")], []
    found = [*state.rotation().differences(), *on_host(state, options, current.release)]
    differing, unknown = in_database(state, options) if options["database"] else ([], [])
    return [*found, *differing], unknown


def on_host(state: State, options: Mapping[str, Any], release: str) -> list[Difference]:
    """What differs beside the database."""
    workload = state.workload(release)
    if not workload:
        return [Difference(f"release {release}", said="its recorded workload is gone")]
    host: Runtime = LocalRuntime(state)
    parts = processes_drift(state, workload)
    if options["engine"]:
        engine = DockerClient.of(options["engine"])
        host, parts = ComposeRuntime(engine, state), containers_drift(Project.of(state, engine), engine)
    files = files_drift(state, workload, containers=bool(options["engine"]))
    return [*files, *release_drift(state, host, host.colours(workload, "", 0, 0)), *parts]


def server_of(state: State, options: Mapping[str, Any]) -> Server | None:
    """The server that has the database, where it runs."""
    if options["engine"]:
        engine = DockerClient.of(options["engine"])
        running = [found for found in engine.containers("database") if found["State"]["Running"]]
        return ContainerServer(engine, str(running[0]["Id"])) if running else None
    cluster = PostgresServer(state.database, Path(options["bindir"]), unprivileged(options["account"]))
    return cluster if cluster.exists() and cluster.running() else None


def in_database(state: State, options: Mapping[str, Any]) -> tuple[list[Difference], list[str]]:
    """What differs in the database, and what could not be compared."""
    names: Mapping[str, Any] = options["database"]
    server = server_of(state, options)
    if server is None:
        return [Difference(f"database {names['database']}", said="does not run")], []
    kept = dict(state.secrets())
    rotation = state.rotation()
    files = {names["owner"]: OWNER} | {f"{names['user']}{login}": f"{PASSWORD}{login}" for login in rotation.logins}
    passwords = {role: kept[name].rstrip("\n") for role, name in files.items() if name in kept}
    logins, retired = ([f"{names['user']}{login}" for login in some] for some in (rotation.logins, rotation.retired))
    known = answers(state)
    return list(database_drift(server, names, passwords, known, logins, retired)), untold(known)


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "state_directory": {"type": "path", "required": True},
            "engine": DockerClient.OPTION,
            "account": {"type": "str"},
            "bindir": {"type": "path"},
            "database": {"type": "dict", "options": {"database": text, "owner": text, "user": text}},
        },
        required_one_of=[("engine", "account")],
        required_together=[("account", "bindir")],
        supports_check_mode=True,
    )
    options = module.params
    state = State(Path(options["state_directory"]))
    try:
        if holder := Lock(state.lock).holder():
            module.warn(f"a run is at work, or was cut off: what it changes may differ ({holder})")
        found, unknown = gather(state, options)
        differences = told(state, found)
    except (DatabaseError, EngineError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, differences=differences, unknown=unknown, said=summary(differences, unknown))


if __name__ == "__main__":
    main()
