#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep one background process and its configuration file on a local target."""

from __future__ import annotations

DOCUMENTATION = r"""
module: local_daemon
short_description: Keep a background process and its configuration file
description:
  - Writes the configuration, starts the process if it does not run, has it read a changed configuration by
    O(reload_command) without an interruption, and restarts it only when its command changed, or its configuration where
    it has no O(reload_command).
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.twins.target]
options:
  name: {description: "Name of the process, for its pid record and its log.", type: str, required: true}
  state:
    description: Whether it runs. With V(stopped) its configuration stays, and nothing else is looked at.
    type: str
    choices: [started, stopped]
    default: started
  command:
    description: >-
      Program and arguments. The program must be an absolute path. Here and in O(check_command) C({python}) stands for
      the Python that runs this module, outside of its virtual environment.
    type: list
    elements: str
    required: true
  environment: {description: "Its environment, beside a plain PATH and locale.", type: dict, default: {}}
  configuration_file: {description: Where the configuration goes., type: path, required: true}
  configuration: {description: The configuration., type: str, required: true}
  check_command:
    description: Command that refuses a bad configuration; C({file}) stands for the file to check.
    type: list
    elements: str
    required: true
  user:
    description: >-
      User id that it runs as where the run is root's; it may listen on any port all the same (the capability
      NET_BIND_SERVICE, given by C(setpriv)). One that runs already stays who it is until it is started again.
    type: int
  data_directories:
    description: Directories on the target that it writes to, and what is in them.
    type: list
    elements: path
    default: []
  watched:
    description: Files on the target whose change has to be loaded like that of the configuration; they may be secret.
    type: list
    elements: path
    default: []
  reload_command:
    description: Command that makes the running process read its configuration again.
    type: list
    elements: str
    default: []
  closing_seconds:
    description: >-
      For how long before a reload a reverse proxy closes each connection with its answer, in seconds, since the reload
      closes those that lie idle.
    type: float
    default: 0
  listens_on:
    description: Address (C(host:port)) that answers once the process works. One that has none works once it goes on.
    type: str
  start_seconds: {description: "How long that may take, in seconds.", type: float, default: 10}
attributes:
  check_mode: {description: Says what would be done., support: full}
  diff_mode: {description: Shows the configuration before and after., support: full}
"""

EXAMPLES = r"""
- name: Deploy the reverse proxy
  whitestar.deploy.local_daemon:
    state_directory: /var/lib/titanic
    name: caddy
    command: [/opt/caddy, run, --config, /var/lib/titanic/Caddyfile]
    configuration_file: /var/lib/titanic/Caddyfile
    configuration: "{{ lookup('ansible.builtin.template', 'Caddyfile.j2') }}"
    check_command: [/opt/caddy, validate, --config, "{file}"]
    reload_command: [/opt/caddy, reload, --config, /var/lib/titanic/Caddyfile]
    listens_on: 127.0.0.1:5000
"""

RETURN = r"""
steps: {description: "What was done, in words.", returned: success, type: list, elements: str}
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.address import split_host_port
from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import record_checksums
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    make_directory,
    stable_hash,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Daemon, service_environment
from ansible_collections.whitestar.deploy.plugins.module_utils.host.fingerprint import fingerprint
from ansible_collections.whitestar.deploy.plugins.module_utils.host.maintenance import connections_closing
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State

SETTLE_SECONDS = 0.2


class ProcessError(RuntimeError):
    """The process or its configuration does not work; the message holds its own words."""


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run one of the helper commands. Raises ProcessError with its output."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/", timeout=30)
    if done.returncode:
        raise ProcessError(f"'{' '.join(command)}' failed: {(done.stderr or done.stdout).strip()[-1500:]}")


def check_configuration(options: dict[str, Any], environment: dict[str, str]) -> None:
    """Let the program judge the new configuration before it replaces the old one. Raises ProcessError."""
    if not Path(options["check_command"][0]).exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        candidate = Path(scratch) / Path(options["configuration_file"]).name
        candidate.write_text(options["configuration"], encoding="utf-8")
        run([word.replace("{file}", str(candidate)) for word in options["check_command"]], environment)


def wait_until_it_works(daemon: Daemon, address: str | None, seconds: float) -> None:
    """Raises ProcessError when it ends or, where it has an address, does not listen in time."""
    if not address:
        time.sleep(SETTLE_SECONDS)
        if not daemon.process():
            raise ProcessError(f"it ended at once; its last output:\n{daemon.log_tail()}")
        return
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError), socket.create_connection(split_host_port(address), timeout=1):
            # Another program may have taken the port meanwhile; then ours ends at once.
            time.sleep(SETTLE_SECONDS)
            if daemon.process():
                return
        if not daemon.process() or time.monotonic() > deadline:
            raise ProcessError(f"it does not listen on {address}; its last output:\n{daemon.log_tail()}")
        time.sleep(0.05)


def steps_needed(daemon: Daemon, options: dict[str, Any], labels: dict[str, str]) -> list[str]:
    """Which of write, start, restart, reload are needed, in order.

    ``labels`` are the hashes of command and configuration; the process has those that it was last brought to.
    """
    fresh = has_content(Path(options["configuration_file"]), options["configuration"].encode(), 0o644)
    steps = [] if fresh else ["write"]
    if not daemon.process():
        steps.append("start")
    elif daemon.facts().get("command") != labels["command"]:
        steps.append("restart")
    elif not fresh or daemon.facts().get("configuration") != labels["configuration"]:
        steps.append("reload" if options["reload_command"] else "restart")
    return steps


def apply(steps: list[str], state: State, options: dict[str, Any], labels: dict[str, str]) -> None:
    """Do what :func:`steps_needed` found. Raises ProcessError and OSError."""
    daemon, environment = state.daemon(options["name"]), service_environment(options["environment"])
    starts, user = {"start", "restart"} & set(steps), options["user"] if os.geteuid() == 0 else None
    for directory in options["data_directories"]:
        make_directory(Path(directory), 0o700)
    path, content = Path(options["configuration_file"]), options["configuration"].encode()
    if "write" in steps:
        write_atomically(path, content, 0o644)
    if "restart" in steps:
        daemon.stop(options["start_seconds"])
    if "reload" in steps:
        with connections_closing(state, options["closing_seconds"]):
            run(options["reload_command"], environment)
        daemon.label(labels)
    if starts:
        if user is not None:
            for directory in options["data_directories"]:
                own(Path(directory), user)
        daemon.start(as_user(options["command"], user), environment, labels)
        wait_until_it_works(daemon, options["listens_on"], options["start_seconds"])
    # Once it works: a file that is put back is recorded as it was.
    record_checksums(path.parent, {path.name: content})


def own(directory: Path, user: int) -> None:
    """Give a directory to a user, with all that is in it."""
    for path in (directory, *directory.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def as_user(command: list[str], user: int | None) -> list[str]:
    """The command as root has it run by this user, in no other group. Raises ProcessError without setpriv."""
    if user is None:
        return command
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin")
    if setpriv is None:
        raise ProcessError("setpriv is missing, which runs the program as another user than root. Install util-linux.")
    kept = "=-all,+net_bind_service"
    may_listen = [f"--inh-caps{kept}", f"--ambient-caps{kept}", f"--bounding-set{kept}"]
    return [setpriv, f"--reuid={user}", f"--regid={user}", "--clear-groups", *may_listen, "--no-new-privs", *command]


def main() -> None:
    """Run the module."""
    words = {"type": "list", "elements": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "state_directory": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
            "command": words,
            "environment": {"type": "dict", "default": {}},
            "configuration_file": {"type": "path", "required": True},
            "configuration": {"type": "str", "required": True},
            "data_directories": {"type": "list", "elements": "path", "default": []},
            "user": {"type": "int"},
            "watched": {"type": "list", "elements": "path", "default": []},
            "check_command": words,
            "reload_command": {"type": "list", "elements": "str", "default": []},
            "closing_seconds": {"type": "float", "default": 0},
            "listens_on": {"type": "str"},
            "start_seconds": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    options = module.params
    # A virtual environment may be gone when it is started the next time.
    python = os.path.realpath(sys.executable)
    for name in ("command", "check_command"):
        options[name] = [word.replace("{python}", python) for word in options[name]]
    state = State(Path(options["state_directory"]))
    daemon = state.daemon(options["name"])
    environment = service_environment(options["environment"])
    # The program behind a link that has moved is another program.
    program = os.path.realpath(options["command"][0])
    watched = fingerprint(state, options["watched"], check=module.check_mode) if options["watched"] else ""
    labels = {
        "command": stable_hash([program, options["command"], options["environment"]]),
        "configuration": stable_hash([options["configuration"], watched] if watched else options["configuration"]),
    }
    path = Path(options["configuration_file"])
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    try:
        with ExitStack() as locks:
            if not module.check_mode:
                locks.enter_context(state.exclusively())
                locks.enter_context(state.exclusively_of(options["name"]))
            if options["state"] == "stopped":
                stops = daemon.process() is not None
                if not module.check_mode:
                    daemon.stop(options["start_seconds"])
                module.exit_json(changed=stops, steps=["stop"] if stops else [])
            steps = steps_needed(daemon, options, labels)
            if "write" in steps:
                check_configuration(options, environment)
            if not module.check_mode:
                apply(steps, state, options, labels)
    except (ProcessError, OSError, subprocess.TimeoutExpired) as error:
        if path.exists() and before and path.read_text(encoding="utf-8") != before:
            write_atomically(path, before.encode(), path.stat().st_mode & 0o7777)
        module.fail_json(msg=f"{options['name']}: {error}")
    module.exit_json(
        changed=bool(steps),
        steps=steps,
        diff={
            "before_header": str(path),
            "after_header": str(path),
            "before": before,
            "after": options["configuration"],
        },
    )


if __name__ == "__main__":
    main()
