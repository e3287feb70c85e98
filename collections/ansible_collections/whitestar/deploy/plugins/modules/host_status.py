#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what runs on a local target, or take all of it away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_status
short_description: Say what runs on a host, or remove it
description:
  - With O(state=reported) lists processes, the serving release, the ledger, the lock and the rows. Changes nothing.
  - With O(state=absent) stops everything and removes the state directory with all data, secrets and releases.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.engine, whitestar.deploy.tls]
options:
  state_directory:
    description: The state directory of the target.
    type: path
    required: true
  state:
    description: Whether to report or to remove.
    type: str
    choices: [reported, absent]
    default: reported
  account:
    description: Account that PostgreSQL runs as instead of root. Needed without O(engine).
    type: str
  bindir:
    description: Directory of PostgreSQL's programs. Needed without O(engine).
    type: path
  address:
    description: Where the front door listens (C(host:port)).
    type: str
    required: true
  url:
    description: What users call it, for the report; made of O(address) if not given.
    type: str
attributes:
  check_mode:
    description: Says what would be removed.
    support: full
  diff_mode:
    description: Shows what is removed.
    support: full
"""

EXAMPLES = r"""
- name: Look
  whitestar.deploy.host_status:
    state_directory: /var/lib/titanic
    account: nobody
    bindir: /usr/lib/postgresql/17/bin
    address: 127.0.0.1:5000
"""

RETURN = r"""
status:
  description: What is there. Empty when nothing is.
  returned: success
  type: dict
"""

import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.compose import (
    ENGINE_OPTION,
    Engine,
    EngineError,
    Project,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.compose_ownership import remove
from ansible_collections.whitestar.deploy.plugins.module_utils.files import json_bytes
from ansible_collections.whitestar.deploy.plugins.module_utils.http import TLS_OPTION, Tls, try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.lock import Lock
from ansible_collections.whitestar.deploy.plugins.module_utils.maintenance import Maintenance
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import Cluster, DatabaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.runtime import runtime
from ansible_collections.whitestar.deploy.plugins.module_utils.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.switch import COLOURS

DAEMONS = ("caddy", *COLOURS)
LEDGER_LINES = 10
GRACE_SECONDS = 25
# All that a deployment puts into its state directory, beside files with a dot that an interrupted write leaves.
OURS = {"run", "log", "images", "releases", "database", "secrets", "tools", "ledger.json", "lock.json", "lock.guard"}
OURS |= {"Caddyfile", "project", "capsules", "front", "answers"}
LOCK_FILES = {"lock.json", "lock.guard"}  # a run that finds nothing makes these itself


class Processes:
    """What runs on a local target."""

    def __init__(self, state: State, options: dict[str, Any]) -> None:
        self.state = state
        self.cluster = Cluster(state.database, Path(options["bindir"]), unprivileged(options["account"]))
        self.database = f"socket in {self.cluster.socket_directory}"

    def listed(self) -> dict[str, str]:
        """Each process in a few words, by name."""
        found = {}
        for name in DAEMONS:
            daemon = self.state.daemon(name)
            process = daemon.process()
            release = daemon.facts().get("release", "")
            drains = " (drains)" if self.state.drain_file(name).exists() else ""
            found[name] = f"pid {process.pid} {release}{drains}".strip() if process else "stopped"
        found["postgresql"] = "running" if self.cluster.exists() and self.cluster.running() else "stopped"
        return found

    def remove(self) -> list[str]:
        """Stop everything, front door first; nothing of others is near it."""
        for name in DAEMONS:
            self.state.daemon(name).stop(GRACE_SECONDS)
        if self.cluster.exists() and self.cluster.running():
            self.cluster.stop()
        return []


class Containers:
    """What runs on a Compose target."""

    def __init__(self, state: State, options: dict[str, Any]) -> None:
        self.state = state
        self.engine = Engine.of(options["engine"])
        self.project = Project.of(state, self.engine)
        self.database = f"container {self.engine.project}-database-1, volume {self.engine.project}_database"

    def listed(self) -> dict[str, str]:
        """Each container in a few words, by name."""
        return {
            str(container["Name"]).lstrip("/"): " ".join(
                [container["State"]["Status"], container["State"].get("Health", {}).get("Status", "")]
            ).strip()
            for container in self.engine.containers()
        }

    def remove(self) -> list[str]:
        """Stop and remove containers, networks, volumes and built images of ours; what of others is left."""
        left = remove(self.project, GRACE_SECONDS)
        host = runtime(self.state, vars(self.engine))
        for directory in self.state.images.glob("*"):
            host.discard_image(directory.name)
        return left


def report(state: State, runs: Processes | Containers, address: str, url: str, tls: Tls | None) -> dict[str, Any]:
    """What is there, for people: processes or containers, release, ledger, lock, rows."""
    if not state.root.exists():
        return {}
    ledger = state.ledger()
    current = ledger.current()
    counted = try_request(address, "/people?limit=1", tls=tls)
    return {
        "url": url or f"http://{address}",
        "ready": (ready := try_request(address, "/readyz", tls=tls)) is not None and ready.status == 200,
        "maintenance": str(Maintenance.of(state) or "off"),
        "release": current.release if current else "none",
        "version": current.version if current else "none",
        "rows": counted.headers.get("x-total-count", "unknown") if counted else "unknown",
        "processes": runs.listed(),
        "database": runs.database,
        "lock": str(Lock(state.lock).holder() or "free"),
        "ledger": [str(entry) for entry in ledger.entries[-LEDGER_LINES:]],
        "rollback_to": [entry.release for entry in ledger.eligible()],
    }


def deployed(state: State) -> bool:
    """Whether there is more than the lock of this run. Raises ValueError if the directory is not ours."""
    names = {path.name for path in state.root.iterdir()} if state.root.exists() else set()
    foreign = sorted(name for name in names - OURS if name[0] != ".")
    if foreign:
        raise ValueError(
            f"titanic_target_state_directory: {state.root} holds what no deployment made ({', '.join(foreign[:5])}): "
            f"move that away first, or check the path"
        )
    return bool(names - LOCK_FILES)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state_directory": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["reported", "absent"], "default": "reported"},
            "engine": ENGINE_OPTION,
            "account": {"type": "str"},
            "bindir": {"type": "path"},
            "address": {"type": "str", "required": True},
            "url": {"type": "str"},
            "tls": TLS_OPTION,
        },
        required_one_of=[("engine", "account")],
        required_together=[("account", "bindir")],
        supports_check_mode=True,
    )
    options = module.params
    state = State(Path(options["state_directory"]))
    absent = options["state"] == "absent"
    try:
        runs = Containers(state, options) if options["engine"] else Processes(state, options)
        removes = absent and deployed(state)
        status = report(state, runs, options["address"], options["url"] or "", Tls.of(options["tls"]))
        if absent and status and not module.check_mode:
            for thing in runs.remove():
                module.warn(f"{thing} has been left: others made it, or use it")
            shutil.rmtree(state.root)
    except (DatabaseError, EngineError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=removes,
        status=status,
        diff={"before": json_bytes(status).decode() if removes else "", "after": ""},
    )


if __name__ == "__main__":
    main()
