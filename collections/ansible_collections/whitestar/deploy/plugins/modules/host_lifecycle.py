#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what runs on a host, stop it, start it again, or take all of it away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_lifecycle
short_description: Say what runs on a host, stop it, start it or remove it
description:
  - With O(state=reported) lists processes, the serving release, the ledger, the lock and the rows. Changes nothing.
  - With O(state=stopped) stops the reverse proxy, which answers what it has, then the release, then the database. Data,
    secrets, releases and the ledger stay.
  - With O(state=started) starts what of them does not run as it was, and waits until the release of the ledger is
    ready. Nothing is built, migrated or configured.
  - With O(state=absent) stops everything and removes the state directory with all data, secrets and releases.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment:
  [whitestar.deploy.engine, whitestar.deploy.tls, whitestar.deploy.twins.lifecycle, whitestar.deploy.twins.target]
options:
  drain_seconds:
    description: How long requests that are being answered may take when it is stopped, in seconds.
    type: float
    default: 25
  account: {description: Account that PostgreSQL runs as instead of root. Needed without O(engine)., type: str}
  bindir: {description: Directory of PostgreSQL's programs. Needed without O(engine)., type: path}
attributes:
  check_mode: {description: "Says what would be stopped, started or removed.", support: full}
  diff_mode: {description: "Shows what is removed, or the steps.", support: full}
"""

EXAMPLES = r"""
- name: Gather the status
  whitestar.deploy.host_lifecycle:
    state_directory: /var/lib/titanic
    account: nobody
    bindir: /usr/lib/postgresql/17/bin
    address: 127.0.0.1:5000
    probes: {ready: /readyz, rows: "/people?limit=1"}
"""

RETURN = r"""
status: {description: What is there. Empty when nothing is., returned: success, type: dict}
steps: {description: "What was stopped, started or removed, in order.", returned: success, type: list, elements: str}
"""

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import NAME as WRITTEN
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import Tls, try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.containers import Containers
from ansible_collections.whitestar.deploy.plugins.module_utils.host.maintenance import current as maintenance
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import ROTATION, STOPPED, State
from ansible_collections.whitestar.deploy.plugins.module_utils.host.stop import Parts, start, stop
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.local.processes import Processes
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import redacted
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import Lock, in_words
from ansible_collections.whitestar.deploy.plugins.module_utils.release.options import (
    LEDGER_LINES,
    LIFECYCLE,
    STATES,
    lifecycle_result,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.stopped import REMEDY

# All that a deployment puts into its state directory, beside a note of what it has written, with which a dot begins.
OURS = {"run", "log", "images", "releases", "database", "secrets", "tools", "ledger.json", "lock.json", "lock.guard"}
OURS |= {"Caddyfile", "project", "capsules", "front", "answers", "supervise.py", "backup", "restore", "drill"}
OURS |= {STOPPED, ROTATION}
# What a file system of its own has at its root (mke2fs(8)).
RECOVERED = "lost+found"
LOCK_FILES = {"lock.json", "lock.guard"}  # a run that finds nothing makes these itself


def report(state: State, runs: Parts, options: dict[str, Any]) -> dict[str, Any]:
    """What is there, for people: processes or containers, release, ledger, lock, rows."""
    if not state.root.exists():
        return {}
    ledger = state.ledger()
    current = ledger.current()
    address, tls = options["address"], Tls.of(options["tls"])
    counted, ready = (try_request(address, options["probes"][name], tls=tls) for name in ("rows", "ready"))
    return {
        "url": options["url"] or f"http://{address}",
        "ready": ready is not None and ready.status == 200,
        "stopped": str(state.stopped() or "no"),
        "down": down(runs, "" if counted or ready else address) or nothing_down(state),
        "maintenance": str(maintenance(state) or "off"),
        "rotation": str(state.rotation()),
        "release": current.release if current else "none",
        "version": current.version if current else "none",
        "rows": counted.headers.get("x-total-count", "unknown") if counted else "unknown",
        "processes": runs.listed(),
        "database": runs.database,
        "backup": runs.backups(),
        "lock": in_words(Lock(state.lock).holder()),
        "ledger": [str(entry) for entry in ledger.entries[-LEDGER_LINES:]],
        "rollback_to": [entry.release for entry in ledger.eligible()],
    }


def down(runs: Parts, silent: str) -> str:
    """What should run and does not, and what to do; empty where nothing is missing, or somebody has stopped it.

    ``silent`` is the reverse proxy's address where it did not answer.
    """
    current = runs.state.ledger().current()
    if current is None or runs.state.stopped():
        return ""
    found = runs.missing() + ([] if runs.serves() else [f"release {current.release}"])
    if not found and silent:
        return f"the reverse proxy runs and does not answer at {silent}: the next run of the site (make up) restarts it"
    return f"{', '.join(found)}: its log says why; {REMEDY}" if found else ""


def nothing_down(state: State) -> str:
    """What is said of what does not run where nothing is missing."""
    return "all of it, since it was stopped" if state.stopped() else "nothing"


def _hidden(name: str) -> bool:
    """Whether a file is our note of what was written, or what a write that was cut off has left beside one of ours."""
    return name == WRITTEN or any(name.startswith(f".{own}.") for own in {*OURS, WRITTEN})


def deployed(state: State) -> bool:
    """Whether there is more than the lock of this run. Raises ValueError if the directory is not ours."""
    names = {path.name for path in state.root.iterdir()} if state.root.exists() else set()
    foreign = sorted(name for name in names - OURS - {RECOVERED} if not _hidden(name))
    if foreign:
        raise ValueError(
            f"titanic_state_directory: {state.root} holds what no deployment made ({', '.join(foreign[:5])}). "
            f"Move that away first, or check the path."
        )
    return bool(names - LOCK_FILES - {RECOVERED})


def clear(root: Path) -> None:
    """Remove a directory with all that is in it; one that something is mounted on is emptied. Raises OSError."""
    if not root.is_mount():
        shutil.rmtree(root)
        return
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != RECOVERED:
                shutil.rmtree(path)
        else:
            path.unlink()


def carry_on(runs: Parts, options: dict[str, Any], *, check: bool) -> list[str]:
    """Stop or start what is deployed: what was done, in words. Raises ValueError where nothing is."""
    if runs.state.ledger().current() is None:
        verb = "stop" if options["state"] == "stopped" else "start"
        raise ValueError(f"nothing is deployed in {runs.state.root}: there is nothing to {verb}")
    with nullcontext() if check else runs.state.exclusively():
        if options["state"] == "stopped":
            return stop(runs, options["by"], options["drain_seconds"], check=check)
        return start(runs, options, check=check)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=LIFECYCLE
        | {
            "state_directory": {"type": "path", "required": True},
            "drain_seconds": {"type": "float", "default": 25},
            "engine": DockerClient.OPTION,
            "account": {"type": "str"},
            "bindir": {"type": "path"},
        },
        required_one_of=[("engine", "account")],
        required_together=[("account", "bindir")],
        supports_check_mode=True,
    )
    options = module.params
    state = State(Path(options["state_directory"]))
    absent = options["state"] == "absent"
    try:
        runs: Parts = Containers(state, options) if options["engine"] else Processes(state, options)
        removes = absent and deployed(state)
        steps = carry_on(runs, options, check=module.check_mode) if options["state"] in STATES[1:3] else []
        status = report(state, runs, options)
        if absent and status and not module.check_mode:
            steps, left = runs.remove()
            clear(state.root)
            for thing in left:
                module.warn(f"{thing} has been left: others made it, or use it")
        if removes:
            steps.append(f"remove {state.root} with all data, secrets and releases")
    except (DatabaseError, EngineError, ReleaseError, OSError, ValueError) as error:
        module.fail_json(msg=redacted(state, str(error)))
    module.exit_json(**lifecycle_result(status, steps, removes=removes))


if __name__ == "__main__":
    main()
