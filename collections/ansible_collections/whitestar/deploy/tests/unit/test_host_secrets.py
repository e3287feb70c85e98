# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be a secret is refused by its name alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import Rotation
from ansible_collections.whitestar.deploy.plugins.modules.host_secrets import contents


def given(values: dict[str, Any]) -> dict[str, Any]:
    return {"given": values, "generated": []}


@pytest.mark.parametrize("name", ["../escape", "a/b", "UPPER", "", ".hidden", "with space", "a\n"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"titanic_secrets_values: '{name}' is no name of a secret")):
        contents(tmp_path, given({name: "value-of-it"}), Rotation())


@pytest.mark.parametrize("value", ["", 12345678, ["hunter2"], None, True])
def test_a_value_that_is_no_text_is_refused_without_showing_it(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="'token' must be a text that is not empty") as caught:
        contents(tmp_path, given({"token": value}), Rotation())
    assert "hunter2" not in str(caught.value)
    assert "12345678" not in str(caught.value)
