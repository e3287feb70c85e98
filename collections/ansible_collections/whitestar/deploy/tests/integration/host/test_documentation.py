# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible itself reads the documentation of every module."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ansible_collections.whitestar.deploy.tests.helpers import COLLECTION, COLLECTIONS, module_environment


def test_ansible_reads_the_documentation(tmp_path: Path) -> None:
    own = {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_HOME": str(tmp_path)}
    names = sorted(f"whitestar.deploy.{path.stem}" for path in (COLLECTION / "plugins/modules").glob("*.py"))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "doc", "--json", *names],
        capture_output=True,
        text=True,
        env=module_environment() | own,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == set(names)
