# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files are whole or absent, and a tree's hash depends on what counts and on nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    copy_tree,
    exclusively,
    has_content,
    json_bytes,
    make_directory,
    read_json,
    stable_hash,
    tree_files,
    tree_hash,
    write_atomically,
)


def test_a_file_is_written_with_its_mode(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"one", 0o640)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o640
    write_atomically(tmp_path / "file", b"two", 0o600)
    assert (tmp_path / "file").read_bytes() == b"two"
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_an_owner_is_given(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"", 0o600, (65534, 65534))
    make_directory(tmp_path / "a" / "b", 0o711, (65534, 65534))
    assert (tmp_path / "file").stat().st_uid == 65534
    assert (tmp_path / "a" / "b").stat().st_gid == 65534
    assert (tmp_path / "a").stat().st_uid == 0


def test_a_directory_gets_its_mode_back(tmp_path: Path) -> None:
    make_directory(tmp_path / "a", 0o755)
    make_directory(tmp_path / "a", 0o700)
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o700


def test_content_includes_the_mode_and_no_link(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert not has_content(path, b"x", 0o600)
    write_atomically(path, b"x", 0o600)
    assert has_content(path, b"x", 0o600)
    assert not has_content(path, b"y", 0o600)
    assert not has_content(path, b"x", 0o644)
    (tmp_path / "link").symlink_to(path)
    assert not has_content(tmp_path / "link", b"x", 0o600)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "package").mkdir(parents=True)
    (root / "package" / "one.py").write_text("one\n")
    (root / "package" / "two.py").write_text("two\n")
    (root / "run").write_text("run\n")
    return root


def test_times_do_not_count(tree: Path) -> None:
    before = tree_hash(tree, ())
    os.utime(tree / "run", (1, 1))
    os.utime(tree / "package", (1, 1))
    assert tree_hash(tree, ()) == before


def change_content(root: Path) -> None:
    (root / "run").write_text("ruN\n")


def change_mode(root: Path) -> None:
    (root / "run").chmod(0o755)


def rename(root: Path) -> None:
    (root / "run").rename(root / "ran")


def move_bytes(root: Path) -> None:
    (root / "package" / "one.py").write_text("one\ntwo\n")
    (root / "package" / "two.py").write_text("")


def add_empty(root: Path) -> None:
    (root / "empty").touch()


def make_link(root: Path) -> None:
    (root / "run").unlink()
    (root / "run").symlink_to("package/one.py")


def link_directory(root: Path) -> None:
    (root / "data").symlink_to("package")


@pytest.mark.parametrize(
    "change", [change_content, change_mode, rename, move_bytes, add_empty, make_link, link_directory]
)
def test_what_counts_changes_the_hash(tree: Path, change: object) -> None:
    before = tree_hash(tree, ())
    assert callable(change)
    change(tree)
    assert tree_hash(tree, ()) != before


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("*.pyc", {"package/one.pyc"}),
        ("__pycache__", {"package/__pycache__/x"}),
        ("package/one.*", {"package/one.py", "package/one.pyc"}),
        (".*", {".git/config"}),
        ("nothing", set()),
    ],
)
def test_patterns_exclude_names_and_paths(tree: Path, pattern: str, gone: set[str]) -> None:
    for extra in ("package/one.pyc", "package/__pycache__/x", ".git/config"):
        (tree / extra).parent.mkdir(exist_ok=True)
        (tree / extra).write_text("x")
    everything = {str(path) for path in tree_files(tree, ())}
    assert everything - {str(path) for path in tree_files(tree, [pattern])} == gone


def test_excluded_files_do_not_count(tree: Path) -> None:
    before = tree_hash(tree, ["tests"])
    (tree / "tests").mkdir()
    (tree / "tests" / "test_one.py").write_text("x")
    assert tree_hash(tree, ["tests"]) == before
    assert tree_hash(tree, ()) != before


def test_a_copy_has_the_same_hash_and_nothing_that_was_excluded(tree: Path, tmp_path: Path) -> None:
    change_mode(tree)
    link_directory(tree)
    (tree / "tests").mkdir()
    (tree / "tests" / "x").touch()
    copy_tree(tree, tmp_path / "copy", ["tests"])
    assert tree_hash(tmp_path / "copy", ()) == tree_hash(tree, ["tests"])
    assert not (tmp_path / "copy" / "tests").exists()


def test_the_hash_of_a_value_ignores_the_order_of_keys() -> None:
    assert stable_hash({"a": 1, "b": [1, 2]}) == stable_hash({"b": [1, 2], "a": 1})
    assert stable_hash([1, 2]) != stable_hash([2, 1])
    assert stable_hash("1") != stable_hash(1)


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"name": "Zoë", "list": [1, None]}
    (tmp_path / "file").write_bytes(json_bytes(value))
    assert read_json(tmp_path / "file", {}) == value
    assert json_bytes(value).endswith(b"}\n")
    assert read_json(tmp_path / "missing", {"default": True}) == {"default": True}


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text('{"entries": [')
    with pytest.raises(ValueError, match=rf"{tmp_path}/ledger\.json is not readable as JSON .* Move it away"):
        read_json(tmp_path / "ledger.json", {})


def test_only_one_is_at_work_in_a_directory(tmp_path: Path) -> None:
    with (
        exclusively(tmp_path / "run"),
        pytest.raises(TimeoutError, match=f"{tmp_path}/run: a step of an earlier run is still at work"),
        exclusively(tmp_path / "run", seconds=0.2),
    ):
        pytest.fail("two at once")
    with exclusively(tmp_path / "run", seconds=0.2):
        pass
