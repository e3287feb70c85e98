#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Acquire and release the deploy lock of a host, once the host has been found fit for the run.

Check, lock and report are one module. A run that is refused must leave no lock behind, and what is reported must be
what the lock protects. As modules of their own they would need the same options, and every run a second task.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_lock
short_description: Check a host and acquire or release its deploy lock
description:
  - With O(state=present) refuses a target that a deployment would fail on later, acquires the deploy lock, and reports
    what serves there now. With O(state=absent) releases the lock.
  - One run at a time may change a target. A second one is refused at once and told who the owner is. The lock of a
    run that has died is taken over, at once on the same machine, after its lease elsewhere.
  - Never reports a change, so that a run which changes nothing else says so.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.engine, whitestar.deploy.twins.lock]
options:
  state_directory:
    description: The one directory that holds everything the deployment makes. Made if it is missing.
    type: path
    required: true
  address: {description: Address that the reverse proxy will listen on. Needed with O(state=present)., type: str}
  port: {description: Port that the reverse proxy will listen on. Needed with O(state=present)., type: int}
  redirect_port:
    description: Port at which the reverse proxy will send HTTP on to HTTPS; 0 for none.
    type: int
    default: 0
  account:
    description: Account that PostgreSQL runs as when the play runs as root. Needed to lock without O(engine).
    type: str
  installs_engine:
    description: Whether the run installs what O(engine) lacks; it may lack it then where the system's packages will do.
    type: bool
    default: false
  free_mebibytes: {description: "Refuse when less disk space than this is free, in MiB.", type: int, default: 500}
attributes:
  check_mode: {description: The target is checked and the lock is left alone., support: full}
  diff_mode: {description: There is nothing to compare., support: none}
"""

EXAMPLES = r"""
- name: Run preflight checks and acquire the deploy lock
  whitestar.deploy.host_lock:
    state_directory: /var/lib/titanic
    state: present
    owner: "{{ 'run' | whitestar.deploy.run_identity }}"
    address: 127.0.0.1
    port: 5000
    account: nobody
"""

RETURN = r"""
reality:
  description: What there is on the target, part by part, each with what tells it from another; empty unless O(looks).
  returned: when O(state=present)
  type: dict
unfinished:
  description: Kinds of secrets whose rotation is half done.
  returned: when O(state=present)
  type: list
  elements: str
live:
  description: The release that serves, as the ledger has it; empty when there is none.
  returned: when O(state=present)
  type: dict
  sample: {release: 3f2a9c0d1b7e-51aa02, image: 3f2a9c0d1b7e, outcome: succeeded}
live_image:
  description: The image of that release; empty when there is none.
  returned: when O(state=present)
  type: str
rollback_to:
  description: The release that a rollback would go back to if the schema allows it; empty when there is none.
  returned: when O(state=present)
  type: str
"""

import errno
import os
import pwd
import shutil
import socket
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.address import bare_host, host_port
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import closed_to_others, make_directory
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.backups import warnings as compose_warnings
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    DockerClient,
    EngineError,
    engine_problems,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.containers import running_containers
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.ownership import refusals
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.packages import Host, lasting_problems
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project
from ansible_collections.whitestar.deploy.plugins.module_utils.host.fingerprint import reality
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import SOCKET_PATH_LIMIT, State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.backup_status import warnings
from ansible_collections.whitestar.deploy.plugins.module_utils.local.processes import running_processes
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import NOTHING_TO_GO_ON_FROM
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import Lock, LockedError, Owner
from ansible_collections.whitestar.deploy.plugins.module_utils.release.options import LOCK
from ansible_collections.whitestar.deploy.plugins.module_utils.release.stopped import refusal

LISTEN = "0A"  # TCP_LISTEN of the kernel's include/net/tcp_states.h, as proc(5) writes it


def problems(state: State, options: dict[str, Any]) -> list[str]:
    """One sentence for each reason why the run would fail here, with variable and remedy. Raises EngineError."""
    # Path.exists raises where a parent may not be entered.
    existing = next(path for path in (state.root, *state.root.parents) if os.access(path, os.F_OK))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = f"{existing} is not a directory writable by uid {os.geteuid()}"
        remedy = "Choose another directory or change its owner."
        return [f"titanic_state_directory: {state.root} cannot be made or written to ({what}). {remedy}"]
    found = refusal(state.stopped()) if options["needs_running"] else []
    found += missing_resources(state, existing, options) if options["deploys"] else []
    if options["engine"]:
        engine = DockerClient.of(options["engine"])
        lacking = lasting_problems(engine, Host()) if options["installs_engine"] else engine_problems(engine)
        return [*found, *(lacking or met_things(state, engine, options))]
    return found + process_problems(state, existing, options["account"])


def met_things(state: State, engine: DockerClient, options: dict[str, Any]) -> list[str]:
    """One sentence for each thing of somebody else's that a deployment would meet on the engine.

    Raises EngineError unless the run is to install the engine, on which there is nothing yet.
    """
    try:
        return refusals(Project.of(state, engine)) if options["deploys"] else []
    except EngineError:
        if not options["installs_engine"]:
            raise
        return []


def process_problems(state: State, existing: Path, account: str) -> list[str]:
    """One sentence for each reason why processes of ours could not run here."""
    found = []
    socket_path = str(state.longest_socket())
    if len(socket_path.encode()) > SOCKET_PATH_LIMIT:
        found.append(
            f"titanic_state_directory: {state.root} is too long: sockets below it would have "
            f"{len(socket_path.encode())} bytes, the system allows {SOCKET_PATH_LIMIT}. Choose a shorter path."
        )
    owner = None
    try:
        owner = unprivileged(account)
    except ValueError as error:
        found.append(f"titanic_database_local_account: {error}. Name another.")
    # Who is not root stays who they are; initdb of PostgreSQL looks its user up, and ends where it finds none.
    if os.geteuid() and not known(os.geteuid()):
        found.append(
            f"titanic_provider: PostgreSQL will not run as user id {os.geteuid()}, which has no name on this machine. "
            "Give it an entry in /etc/passwd, or run as a user that has one."
        )
    if owner and (closed := closed_to_others(existing)):
        found.append(
            f"titanic_state_directory: PostgreSQL runs as '{account}', which cannot enter {closed}. "
            "Choose a directory whose parents are open to others, such as /var/lib/titanic."
        )
    return found


def missing_resources(state: State, existing: Path, options: dict[str, Any]) -> list[str]:
    """One sentence for each of disk space and port that a deployment needs and does not find."""
    found = []
    free, needed = shutil.disk_usage(existing).free // 2**20, options["free_mebibytes"]
    if free < needed:
        found.append(
            f"titanic_state_directory: only {free} MiB are free on the disk of {existing}, "
            f"{needed} MiB are needed (titanic_preflight_free_mebibytes). Free some or choose another disk."
        )
    address, engine = options["address"], options["engine"]
    ours = reverse_proxy_ports(state, engine)
    for name in ("port", "redirect_port"):
        port = options[name]
        problem = cannot_listen(address, port, f"titanic_api_{name}", engine) if port else ""
        # Our own reverse proxy may have the port, but no address that the host has not.
        if problem and (port not in ours or problem.startswith("titanic_api_address")):
            found.append(problem)
    return found


def reverse_proxy_ports(state: State, engine: dict[str, Any] | None) -> set[int]:
    """The ports that our own reverse proxy has now."""
    if engine is None:
        process = state.daemon("caddy").process()
        return listening(process.pid) if process else set()
    try:
        running = [found for found in DockerClient.of(engine).containers("proxy") if found["State"]["Running"]]
    except EngineError:
        return set()
    published = [places for found in running for places in (found["HostConfig"]["PortBindings"] or {}).values()]
    return {int(place["HostPort"]) for places in published for place in places or [] if place["HostPort"]}


def listening(pid: int) -> set[int]:
    """The TCP ports that a process listens on, as proc(5) has them. Empty for a process of somebody else's."""
    process = Path(f"/proc/{pid}")
    try:
        sockets = {_opened(link) for link in (process / "fd").iterdir()}
        lines = [line.split() for name in ("tcp", "tcp6") for line in (process / "net" / name).read_text().splitlines()]
    except OSError:
        return set()
    return {
        int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == LISTEN and f"socket:[{line[9]}]" in sockets
    }


def _opened(link: Path) -> str:
    """What a file descriptor is of; nothing of one that has been closed meanwhile, as under load."""
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""


def known(uid: int) -> bool:
    """Whether a user id has a name on this machine."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def cannot_listen(address: str, port: int, variable: str, engine: dict[str, Any] | None) -> str:
    """Why nothing can listen there, in one sentence; empty if something can. An engine may what its user may not."""
    where = host_port(address, port)
    try:
        found = socket.getaddrinfo(bare_host(address), port, type=socket.SOCK_STREAM)
        # Of the addresses of a name Caddy takes the first of IPv4.
        family, *_, place = min(found, key=lambda each: each[0])
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return f"{variable}: {where} is in use by another program. Stop that or choose another port."
        if isinstance(error, PermissionError):
            return "" if engine else f"{variable}: {where} cannot be listened on ({why}). Choose another port."
        return f"titanic_api_address: {where} cannot be listened on ({why}). Name an address of this host."
    return ""


def current_fingerprint(state: State, options: dict[str, Any]) -> dict[str, str]:
    """What there is here. Raises OSError, ValueError, and EngineError unless the run is to install the engine."""
    engine = options["engine"]
    try:
        return reality(state, running_containers(DockerClient.of(engine)) if engine else running_processes(state))
    except EngineError:
        if not options["installs_engine"]:
            raise
        return reality(state, {})


def acquire(module: AnsibleModule, state: State, owner: Owner) -> dict[str, Any]:
    """Check, lock, look. Raises LockedError, OSError, ValueError; fails the module with every problem found."""
    options = module.params
    if options["continues"] and not any(state.secrets()):
        module.fail_json(msg=NOTHING_TO_GO_ON_FROM)
    found = problems(state, options)
    if found:
        module.fail_json(msg="\n".join(found), problems=found)
    if not module.check_mode:
        make_directory(state.root, 0o755)
        dead = Lock(state.lock).acquire(owner, options["lease_seconds"])
        if dead:
            module.warn(f"took the deploy lock over from {dead}, which has ended without giving it back")
    engine = options["engine"]
    for line in compose_warnings(DockerClient.of(engine), state) if engine else warnings(state):
        module.warn(line)
    ledger = state.ledger()
    current = ledger.current()
    return {
        "reality": current_fingerprint(state, options) if options["looks"] else {},
        "unfinished": list(state.rotation().unfinished),
        "live": vars(current) if current else {},
        "live_image": state.workload(current.release).get("image", "") if current else "",
        "rollback_to": ledger.rollback_to(),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=LOCK
        | {
            "state_directory": {"type": "path", "required": True},
            "engine": DockerClient.OPTION,
            "address": {"type": "str"},
            "port": {"type": "int"},
            "redirect_port": {"type": "int", "default": 0},
            "account": {"type": "str"},
            "installs_engine": {"type": "bool", "default": False},
            "free_mebibytes": {"type": "int", "default": 500},
        },
        required_if=[("state", "present", ("address", "port"))],
        supports_check_mode=True,
    )
    if module.params["state"] == "present" and not (module.params["engine"] or module.params["account"]):
        module.fail_json(msg="account: without engine it is required.")
    state = State(Path(module.params["state_directory"]))
    owner = Owner(**module.params["owner"])
    facts: dict[str, Any] = {}
    try:
        if module.params["state"] == "present":
            facts = acquire(module, state, owner)
        elif not module.check_mode:
            Lock(state.lock).release(owner)
    except (LockedError, EngineError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
