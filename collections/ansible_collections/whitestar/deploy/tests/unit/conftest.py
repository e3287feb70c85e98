# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps this room fast."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _no_second_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module as a program, or Ansible, takes a second to start: what is tested so has its place in integration."""
    start = subprocess.Popen.__init__

    def checked(self: Any, arguments: Any, *more: Any, **named: Any) -> None:
        assert arguments[0] != sys.executable, "a unit test starts no Python: tests that do are in tests/integration"
        start(self, arguments, *more, **named)

    monkeypatch.setattr(subprocess.Popen, "__init__", checked)
