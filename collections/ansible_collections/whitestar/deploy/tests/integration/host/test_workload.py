# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of a run of Ansible get the same workload from the filters, by the names that roles use."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.whitestar.deploy.plugins.filter.workload import (
    FilterModule,
)
from ansible_collections.whitestar.deploy.tests.helpers import run_ansible


def test_every_task_of_a_run_has_the_same_identity(tmp_path: Path) -> None:
    """Ansible forks a worker for each task; the identity is that of ansible-playbook itself."""
    identity = "{{ ('run' | whitestar.deploy.run_identity).pid }}"
    tasks = [{"ansible.builtin.debug": {"msg": f"pid={identity}"}} for _ in range(2)]
    output = run_ansible(tmp_path, {"tasks": tasks}).stdout
    pids = {word for word in output.replace('"', " ").split() if word.startswith("pid=")}
    assert len(pids) == 1, output
    assert pids != {f"pid={os.getpid()}"}


def test_the_filters_have_the_names_that_roles_use() -> None:
    assert set(FilterModule().filters()) == {
        "bare_host",
        "command_job",
        "compose_ports",
        "compose_upstreams",
        "database_address",
        "database_connection",
        "database_environment",
        "database_secret_files",
        "deployer_rules",
        "host_port",
        "identity_text",
        "merge_overrides",
        "release_objects",
        "release_promises",
        "rotation_kinds",
        "reverse_proxy",
        "run_identity",
        "run_kind",
        "server_arguments",
        "state_directory",
        "summary",
        "validate_environment",
        "workload",
    }
