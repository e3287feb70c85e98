# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tree of files is kept as it should be, and what others have put there is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.tests.helpers import Result, run_module

HEADER = "# Rendered by a test"
FILES = {"base/one.yaml": f"{HEADER}\none: 1\n", "two.json": '{"two": 2}\n'}


def kept(place: Path, files: dict[str, str], *, check: bool = False) -> Result:
    options: dict[str, Any] = {"directory": str(place / "tree"), "files": files, "header": HEADER}
    return run_module("directory_content", options | {"_ansible_diff": True}, check=check)


def there(place: Path) -> dict[str, str]:
    """What is in the tree, by path."""
    found = (path for path in (place / "tree").rglob("*") if path.is_file())
    return {str(path.relative_to(place / "tree")): path.read_text() for path in found}


def test_the_life_of_a_tree(place: Path) -> None:
    planned = kept(place, FILES, check=True)
    assert planned["changed"]
    assert not (place / "tree").exists()
    made = kept(place, FILES)
    assert made["written"] == planned["written"] == ["base/one.yaml", "two.json"]
    assert made["diff"][0]["after"] == FILES["base/one.yaml"]
    assert there(place) == FILES
    for check in (True, False):
        assert not kept(place, FILES, check=check)["changed"]

    changed = FILES | {"two.json": "{}\n"}
    assert kept(place, changed, check=True)["written"] == ["two.json"]
    assert there(place) == FILES
    assert kept(place, changed)["written"] == ["two.json"]
    for check in (True, False):
        assert not kept(place, changed, check=check)["changed"]

    less = {"two.json": "{}\n"}
    assert kept(place, less, check=True)["removed"] == ["base/one.yaml"]
    assert there(place) == changed
    assert kept(place, less)["removed"] == ["base/one.yaml"]
    assert not (place / "tree/base").exists()
    for check in (True, False):
        assert not kept(place, less, check=check)["changed"]


def test_what_others_have_put_there_stays(place: Path) -> None:
    kept(place, FILES)
    (place / "tree/base/mine").write_text("mine")
    (place / "tree/base/link").symlink_to("one.yaml")
    assert kept(place, {})["removed"] == ["base/one.yaml"]
    assert set(there(place)) == {"base/mine", "two.json"}, "without the header it could be anybody's"


def test_a_file_that_somebody_has_closed_is_opened_again(place: Path) -> None:
    kept(place, FILES)
    (place / "tree/two.json").chmod(0o600)
    assert kept(place, FILES)["written"] == ["two.json"]
    assert (place / "tree/two.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("path", ["../outside", "/outside"])
def test_nothing_is_written_elsewhere(place: Path, path: str) -> None:
    refused = kept(place, {path: "x"})
    assert refused["failed"]
    assert "not below the directory" in refused["msg"]
    assert not (place / "outside").exists()
