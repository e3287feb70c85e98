# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A marker is whole or none, and uv is found and told where to ask."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.local.venv import (
    MARKER,
    marker,
    uv_command,
    uv_environment,
)


def test_a_marker_is_a_whole_object(tmp_path: Path) -> None:
    assert marker(tmp_path) is None
    (tmp_path / MARKER).write_text("[]")
    assert marker(tmp_path) is None
    (tmp_path / MARKER).write_text('{"identity": "x"}')
    assert marker(tmp_path) is None, "other accounts cannot enter it"
    tmp_path.chmod(0o755)
    assert marker(tmp_path) == {"identity": "x"}


def test_uv_is_found_beside_the_interpreter_or_on_the_path() -> None:
    assert uv_command()[-1].endswith("uv")
    assert shutil.which(uv_command()[0])


def test_uv_asks_where_pip_was_told_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert "UV_DEFAULT_INDEX" not in uv_environment()
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.example/simple")
    assert uv_environment()["UV_DEFAULT_INDEX"] == "https://packages.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.example/simple")
    assert "UV_DEFAULT_INDEX" not in uv_environment()
