# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release directory is built once for one input, is whole or absent, and tells what it is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.venv import (
    MARKER,
    BuildError,
    Environment,
    interpreter_version,
)
from ansible_collections.whitestar.deploy.tests.helpers import Result, run_module

PROJECT = """[build-system]
requires = ["uv_build>=0.9,<1"]
build-backend = "uv_build"
[project]
name = "tiny-release"
version = "1.2.3"
requires-python = ">=3.11"
[project.scripts]
tiny = "tiny_release:main"
mumble = "tiny_release:mumble"
"""
CODE = """import json


def main():
    print(json.dumps({"version": "1.2.3", "schema": {"required": "1", "oldest_tolerated": "1"}}))


def mumble():
    print("no JSON")
"""


# A small package that a project may need.
BLINKER = """blinker==1.9.0 \\
    --hash=sha256:b4ce2265a7abece45e7cc896e98dbebe6cead56bcf805a3d23136d145f5445bf \\
    --hash=sha256:ba0efaa9080b619ff2f3459d1d500c57bddea4a6b424b60a91141db6fd2f08bc
"""


@pytest.fixture
def project(place: Path) -> Path:
    root = place / "project"
    (root / "src" / "tiny_release").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "src" / "tiny_release" / "__init__.py").write_text(CODE)
    (root / "requirements.txt").write_text("# nothing\n")
    return root


def build(project: Path, *, check: bool = False, **options: Any) -> Result:
    given = {
        "directory": str(project.parent / "images"),
        "project": str(project),
        "requirements": str(project / "requirements.txt"),
        "exclude": ["tests", "__pycache__"],
        "describe": ["tiny"],
    }
    return run_module("local_venv_release", given | options, check=check)


def images(project: Path) -> list[str]:
    directory = project.parent / "images"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_twelve_steps(project: Path) -> None:
    seen = build(project, check=True)
    assert seen.changed
    assert seen["image"]["description"] == {}
    assert images(project) == []
    done = build(project)
    assert done.changed
    assert done["image"]["reference"] == seen["image"]["reference"]
    assert done["image"]["identity"] == Path(done["image"]["reference"]).name
    assert done["image"]["description"]["version"] == "1.2.3"
    program = f"{done['image']['reference']}/bin/tiny"
    assert b"1.2.3" in subprocess.run([program], capture_output=True, check=True).stdout
    assert not (Path(done["image"]["reference"]) / "source").exists()
    for check in (True, False):
        again = build(project, check=check)
        assert not again.changed
        assert again["image"] == done["image"]
    (project / "tests").mkdir()
    (project / "tests" / "test_tiny.py").touch()
    assert not build(project, check=True).changed

    (project / "src" / "tiny_release" / "__init__.py").write_text(CODE + "\n# changed\n")
    assert build(project, check=True).changed
    newer = build(project)
    assert newer.changed
    assert newer["image"]["identity"] != done["image"]["identity"]
    assert images(project) == sorted([done["image"]["identity"], newer["image"]["identity"]])


def bytecode(done: Result) -> dict[str, int]:
    """Every file of Python that was installed, and which file (inode) its bytecode is; 0 where there is none."""
    packages = next(Path(done["image"]["reference"]).glob("lib/python3*/site-packages"))
    found = {}
    for source in packages.rglob("*.py"):
        compiled = Path(importlib.util.cache_from_source(str(source)))
        found[str(source.relative_to(packages))] = compiled.stat().st_ino if compiled.exists() else 0
    return found


def test_a_release_takes_over_the_bytecode_of_the_one_before_and_compiles_what_differs(project: Path) -> None:
    (project / "requirements.txt").write_text(BLINKER)
    first = bytecode(build(project))
    (project / "src" / "tiny_release" / "__init__.py").write_text(CODE + "\n# changed\n")
    done = build(project)
    second = bytecode(done)
    assert second.keys() == first.keys()
    assert all(second.values())
    assert "blinker/base.py" in second
    assert [name for name in second if second[name] != first[name]] == ["tiny_release/__init__.py"]
    # Nothing is left for the first who imports it to write.
    subprocess.run([f"{done['image']['reference']}/bin/python", "-c", "import blinker, tiny_release"], check=True)
    assert bytecode(done) == second


def test_a_build_that_was_cut_off_is_done_again(project: Path) -> None:
    done = build(project)
    (Path(done["image"]["reference"]) / MARKER).unlink()
    assert build(project, check=True).changed
    assert build(project).changed
    assert not build(project).changed


def test_what_is_built_is_open_to_other_accounts_whatever_the_umask_is(project: Path) -> None:
    before = os.umask(0o077)
    try:
        made = Path(build(project)["image"]["reference"])
        for path in (made, made.parent, *made.rglob("*")):
            assert path.is_symlink() or path.stat().st_mode & 0o044 == 0o044, path
        # As one that was made before.
        made.chmod(0o700)
        assert build(project, check=True).changed
        assert build(project).changed
        assert not build(project).changed
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o755


def test_a_build_that_fails_leaves_nothing_and_says_why(project: Path) -> None:
    (project / "pyproject.toml").write_text(PROJECT.replace('"1.2.3"', '"no version"'))
    failed = build(project)
    assert "the release could not be built, nothing else was touched" in failed.message
    assert "no version" in failed.message
    assert images(project) == []
    failure = {"state_directory": str(project.parent), "by": "alice@laptop"}
    assert "evidence" not in build(project, python="/nowhere/python", failure=failure).message
    assert "evidence" in build(project, failure=failure).message
    (failure_report,) = (project.parent / "capsules").iterdir()
    assert "no version" in failure_report.read_text()
    (entry,) = State(project.parent).ledger().entries
    assert (failure_report.name, entry.outcome) == (f"000001-{entry.image}.txt", "failed")
    assert images(project) == []


def test_a_requirement_without_a_hash_is_refused(project: Path) -> None:
    (project / "requirements.txt").write_text("wheel==0.45.1\n")
    assert "--hash" in build(project).message or "hash" in build(project).message
    assert images(project) == []


@pytest.mark.parametrize("describe", [["mumble"], ["missing"]])
def test_a_release_that_cannot_say_what_it_is_is_no_release(project: Path, describe: list[str]) -> None:
    failed = build(project, describe=describe)
    assert describe[0] in failed.message
    assert images(project) == []
    assert build(project).changed


def test_another_source_than_the_planned_one_is_refused_before_it_is_built(project: Path) -> None:
    planned = build(project, check=True)["image"]["identity"]
    code = project / "src/tiny_release/__init__.py"
    code.write_text(f"{CODE}# not planned\n")
    for check in (True, False):
        refused = build(project, check=check, planned=planned)
        assert "titanic_plan: the source has changed since the plan was made" in refused.message
    assert images(project) == []
    code.write_text(CODE)
    assert build(project, planned=planned)["image"]["identity"] == planned


@pytest.mark.parametrize("missing", ["pyproject.toml", "requirements.txt"])
def test_a_missing_file_is_named(project: Path, missing: str) -> None:
    (project / missing).unlink()
    assert missing in build(project).message


def test_an_interpreter_that_does_not_start_is_named(project: Path) -> None:
    assert "/nowhere/python could not be run" in build(project, python="/nowhere/python").message


def test_links_are_kept_and_follow(project: Path) -> None:
    links = {"python": "bin/python", "library": "lib/python3*"}
    options: dict[str, Any] = {"links": links, "describe": []}
    done = build(project, **options)
    assert done.changed
    link = project.parent / "images" / "python"
    assert link.readlink() == Path(done["image"]["reference"]) / "bin" / "python"
    assert not build(project, **options).changed
    link.unlink()
    assert build(project, check=True, **options).changed
    assert not link.exists()
    assert build(project, **options).changed
    assert link.exists()
    assert not build(project, check=True, **options).changed
    missing = options | {"links": {"x": "bin/x"}}
    assert "holds no bin/x. Add the package that has it" in build(project, **missing).message


def test_every_input_counts(project: Path) -> None:
    base = Environment(project.parent, project / "requirements.txt", sys.executable, project, ("tests",))
    identity = base.identity()
    assert len(identity) == 64
    assert base.directory() == project.parent / identity[:12]
    without = Environment(project.parent, project / "requirements.txt", sys.executable)
    assert without.identity() != identity
    (project / "requirements.txt").write_text("# something\n")
    assert base.identity() != identity


def test_interpreters_say_their_version(place: Path) -> None:
    version = ".".join(map(str, sys.version_info[:3]))
    assert interpreter_version(sys.executable).startswith(f"cpython {version}")
    with pytest.raises(BuildError, match="could not be run"):
        interpreter_version(str(place / "python"))
