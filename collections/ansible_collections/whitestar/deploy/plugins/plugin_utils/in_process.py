# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module in a fork of the controller, where the target is this machine, this user and this interpreter.

Sent the usual way, a module costs 0.4 s of CPU before its first line. It is packed, and Python starts and compiles what
is imported, since the zip file that it gets keeps no bytecode. The worker that would send it has all of that loaded.
What runs is the same: the same module, the same arguments as JSON, its answer read from its standard output.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import sys
import tempfile
import traceback
from typing import Any

from ansible import constants
from ansible.module_utils import _internal
from ansible.module_utils._internal._ansiballz._loader import run_module
from ansible.module_utils.common.json import Direction, get_module_encoder
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader, test_loader
from ansible.utils.display import Display

PROFILE = "legacy"
COLLECTION = "ansible_collections.whitestar.deploy.plugins"
INTERRUPTED = 130


def load_once() -> None:
    """Import what modules, filters and lookups import, into the process that forks a worker for each task.

    Ansible's linear strategy loads an action plugin there to look at its class. What that process has not imported each
    worker compiles again, since collections keep no bytecode: a tenth of a second of CPU for each task.
    """
    for kind in ("module_utils", "filter", "lookup"):
        package = importlib.import_module(f"{COLLECTION}.{kind}")
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    # Ansible's own, which each worker would read for its first template.
    for loader in (filter_loader, test_loader):
        list(loader.all())


load_once()


class ForkedModule(ActionBase):
    """What an action plugin derives from whose module need not be sent to this machine."""

    def _execute_module(
        self,
        module_name: str | None = None,
        module_args: dict[str, Any] | None = None,
        tmp: str | None = None,
        task_vars: dict[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        variables = task_vars or {}
        if not self._is_this_process(variables):
            sent: dict[str, Any] = super()._execute_module(module_name, module_args, tmp, task_vars, **more)
            return sent
        name = str(module_name or self._task.action)
        return self._execute_here(name, dict(self._task.args if module_args is None else module_args), variables)

    def _execute_here(self, name: str, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """What a module answers in a fork of this process, whatever the target is."""
        self._update_module_args(name, arguments, variables)
        Display().vvv(f"Running module {name} in a fork of the controller")
        answer = self._parse_returned_data(_fork(name, arguments), PROFILE)
        # A dictionary before ansible-core 2.21.
        return dict(answer if isinstance(answer, dict) else answer.as_result_dict(for_round_trip=True))

    def _is_this_process(self, variables: dict[str, Any]) -> bool:
        """Whether a module that is sent would run as this user, on this machine, with this interpreter."""
        task = self._task
        if self._connection.transport != "local" or self._connection.become or task.delegate_to:
            return False
        if task.async_val or any(task.environment or []) or constants.DEFAULT_KEEP_REMOTE_FILES:
            return False
        return bool(self._templar.template(variables.get("ansible_python_interpreter")) == sys.executable)


def _fork(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a module to its end; what ActionBase knows of a command: ``rc``, ``stdout``, ``stderr``."""
    encoder = get_module_encoder(PROFILE, Direction.CONTROLLER_TO_MODULE)
    parameters = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}, cls=encoder).encode()
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os.dup2(writer, 1)
            os.dup2(errors.fileno(), 2)
            os._exit(_run(name, parameters))
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            output = stream.read()
        _, status = os.waitpid(child, 0)
        errors.seek(0)
        said = errors.read()
    return {
        "rc": os.waitstatus_to_exitcode(status),
        "stdout": output.decode(errors="replace"),
        "stderr": said.decode(errors="replace"),
    }


def _run(name: str, parameters: bytes) -> int:
    """The fork's whole life; its exit status."""
    # As in a Python that has just started, so that a module unwinds when the run is interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # What a module warns of belongs into its answer. On the controller it would go to a display, here to nobody's.
    _internal.is_controller = False
    collection, _, module = name.rpartition(".")
    with os.fdopen(1, "w", encoding="utf-8") as sys.stdout, os.fdopen(2, "w", encoding="utf-8") as sys.stderr:
        try:
            run_module(
                json_params=parameters,
                profile=PROFILE,
                module_fqn=f"ansible_collections.{collection}.plugins.modules.{module}",
                modlib_path="",
                extensions={},
            )
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except KeyboardInterrupt:
            return INTERRUPTED
        except BaseException:  # noqa: BLE001 (nothing may go back to where the worker was)
            traceback.print_exc()
    return 1
