"""ansible-playbook for Molecule: Ansible's own modules run in a fork of the controller, as ours do anyway.

Scenarios look at a target with hundreds of small tasks (command, uri, stat), each of which costs 0.4 s of CPU before
the first line of its module. What runs is the same module, with the same arguments. Whole runs that a scenario starts
(molecule/shared/tasks/run.yml) are as users have them.
"""

from __future__ import annotations

from typing import Any

from ansible.cli.playbook import main
from ansible.executor.task_queue_manager import TaskQueueManager
from ansible.module_utils._internal._ansiballz import _loader
from ansible.plugins.action import ActionBase

OWN = ("ansible.builtin.", "ansible.legacy.")


def fork_own_modules() -> None:
    """Have each action plugin run Ansible's own modules so, where the target is this process's machine and user."""
    # Only here does Ansible know where collections are.
    from ansible_collections.whitestar.deploy.plugins.plugin_utils import in_process

    in_process.run_module = run_module  # type: ignore[attr-defined]  # where _fork takes it from
    send, forked = ActionBase._execute_module, in_process.ForkedModule

    def execute_module(
        self: Any,
        module_name: str | None = None,
        module_args: dict[str, Any] | None = None,
        tmp: str | None = None,
        task_vars: dict[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        name, variables = str(module_name or self._task.resolved_action or self._task.action), task_vars or {}
        if not name.startswith(OWN) or not forked._is_this_process(self, variables):
            sent: dict[str, Any] = send(self, module_name, module_args, tmp, task_vars, **more)
            return sent
        arguments = dict(self._task.args if module_args is None else module_args)
        if more.get("ignore_unknown_opts"):  # stat, which has no option that its like for Windows has
            arguments.pop("get_size", None)
        answer = forked._execute_here(self, f"ansible.builtin.{name.split('.')[2]}", arguments, variables)
        # As Ansible has it after a module that was sent.
        lines = {f"{key}_lines": answer[key].splitlines() for key in ("stdout", "stderr") if key in answer}
        return lines | answer

    ActionBase._execute_module = execute_module


def run_module(*, module_fqn: str, **more: Any) -> None:
    """Run a module; Ansible's own lie elsewhere than those of a collection."""
    place = "ansible_collections.ansible.builtin.plugins."
    RUN_MODULE(module_fqn=module_fqn.replace(place, "ansible.", 1), **more)


def run(self: TaskQueueManager, play: Any) -> Any:
    """A play, for which the first one prepares."""
    if ActionBase._execute_module.__module__ != __name__:
        fork_own_modules()
    return RUN(self, play)


RUN, RUN_MODULE = TaskQueueManager.run, _loader.run_module

if __name__ == "__main__":
    TaskQueueManager.run = run
    main()
