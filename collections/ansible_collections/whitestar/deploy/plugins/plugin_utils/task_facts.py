# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task of a play is to whom reads the output: its kind, its role, its stage, whether a failure ends the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible.playbook.block import Block
from ansible.playbook.role_include import IncludeRole
from ansible_collections.whitestar.deploy.plugins.plugin_utils.run_report import stage_name

LINEAR = ("linear", "ansible.builtin.linear", "ansible.legacy.linear")
# What asks somebody something.
PROMPTS = ("pause", "ansible.builtin.pause", "ansible.legacy.pause")
DEBUG = ("debug", "ansible.builtin.debug", "ansible.legacy.debug")
# What Ansible puts before the tasks of a role that has specifications, with whatever tags.
VALIDATIONS = (
    "validate_argument_spec",
    "ansible.builtin.validate_argument_spec",
    "ansible.legacy.validate_argument_spec",
)


def parents(task: Any) -> Iterator[tuple[Any, Any]]:
    """Each block or include that a task is in, from the inside, with what leads to the task in it."""
    child, parent = task, getattr(task, "_parent", None)
    while parent is not None:
        yield parent, child
        child, parent = parent, getattr(parent, "_parent", None)


def is_rescued(task: Any) -> bool:
    """Whether a block that a task is in goes on after its failure."""
    return any(
        isinstance(parent, Block) and parent.rescue and child._uuid in {each._uuid for each in parent.block}
        for parent, child in parents(task)
    )


def role_of(task: Any) -> str:
    """The full name of a task's role, empty where it has none."""
    return task._role.get_name() if task._role else ""


def stage_of(task: Any) -> tuple[str, str]:
    """The stage that a task belongs to, and its role.

    It is what the play includes under a name of its own, otherwise the role, otherwise the play. So a role that is
    included to stop, to start and to remove is a stage of that name each time.
    """
    includes = [each for each in (task, *(parent for parent, _ in parents(task))) if isinstance(each, IncludeRole)]
    if includes and includes[-1].name and " | " not in includes[-1].name:
        return includes[-1].name, includes[-1]._role_name
    if role := role_of(task):
        return stage_name(role), role
    return task.get_play().get_name().strip(), ""
