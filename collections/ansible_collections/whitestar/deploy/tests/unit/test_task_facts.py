# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task is to whom reads the output is read from the play that it is in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.vars.manager import VariableManager
from ansible_collections.whitestar.deploy.plugins.plugin_utils.task_facts import is_rescued, role_of, stage_of

PLAY = """
- name: Deploy
  hosts: all
  tasks:
    - name: inside
      block:
        - {name: rescued, ansible.builtin.meta: noop}
      rescue:
        - {name: rescuing, ansible.builtin.meta: noop}
      always:
        - {name: always, ansible.builtin.meta: noop}
    - {name: alone, ansible.builtin.meta: noop}
"""


@pytest.fixture
def tasks(tmp_path: Path) -> dict[str, Any]:
    """The tasks of the play, by name."""
    (tmp_path / "play.yml").write_text(PLAY)
    loader = DataLoader()
    (play,) = Playbook.load(str(tmp_path / "play.yml"), VariableManager(loader=loader), loader).get_plays()
    blocks = [block for outer in play.get_tasks() for block in (outer if isinstance(outer, list) else [outer])]
    found = {}
    while blocks:
        each = blocks.pop()
        parts = [getattr(each, part, []) for part in ("block", "rescue", "always")]
        blocks += [inner for part in parts for inner in part]
        found[each.get_name()] = each
    return found


def test_a_failure_is_rescued_in_the_block_alone(tasks: dict[str, Any]) -> None:
    assert [name for name in ("rescued", "rescuing", "always", "alone") if is_rescued(tasks[name])] == ["rescued"]


def test_without_a_role_the_play_is_the_stage(tasks: dict[str, Any]) -> None:
    assert role_of(tasks["alone"]) == ""
    assert stage_of(tasks["alone"]) == ("Deploy", "")
