"""`make test-fast` looks at what a branch has changed, all of it, and fails when there is an error in that."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests import fast, suite
from tests.steps import COLLECTION, linters

SETTINGS = ("pyproject.toml", ".yamllint", ".ansible-lint", ".ansible-lint-rules/house.py", "bin/lint_ansible.py")
TASKS = "roles/titanic_seed/tasks/main.yml"
WELL = {
    "bin/sums.py": '"""Sums."""\n\nTOTAL = 1\n',
    "site.yml": "---\n- name: Nothing\n  hosts: localhost\n  tasks: []\n",
    f"{COLLECTION}/roles/README.md": "Roles.\n",
    TASKS: "---\n- name: seed | Display a greeting\n  ansible.builtin.debug:\n    msg: Hello\n",
}
# file -> what is well in it, what is wrong instead, and how that is called
WRONG = {
    "bin/sums.py": ("1", "unknown", "F821"),
    "site.yml": ("name: N", "name:  N", "too many spaces after colon"),
    TASKS: ("seed | ", "", "house-task-name"),
}


def git(place: Path, *arguments: str) -> None:
    author = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", *author, *arguments], cwd=place, check=True, capture_output=True)


def write(place: Path, *names: str) -> None:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(WELL.get(name, f"{name}\n"))


def commit(place: Path, *names: str) -> None:
    write(place, *names)
    git(place, "add", ".")
    git(place, "commit", "-m", "One change")


@pytest.fixture
def checkout(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with this one's settings and a commit on main, in the place of this one."""
    place = tmp_path / "checkout"
    for name in SETTINGS:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, place / name)
    git(place, "init", "--initial-branch=main")
    commit(place, *WELL)
    for module in (fast, suite):
        monkeypatch.setattr(module, "ROOT", place)
    monkeypatch.setattr(suite, "REPORTS", tmp_path)
    return place


def test_a_branch_has_changed_what_main_has_not(checkout: Path) -> None:
    git(checkout, "checkout", "-b", "work")
    commit(checkout, "committed.py", "deleted.py")
    git(checkout, "checkout", "main")
    commit(checkout, "of-others.py")
    git(checkout, "checkout", "work")
    write(checkout, "staged.py", "new.py", ".gitignore", "ignored.py")
    (checkout / ".gitignore").write_text("ignored.py\n")
    (checkout / "site.yml").write_text("---\n")
    (checkout / "deleted.py").unlink()
    git(checkout, "add", "staged.py")
    assert fast.changed_files() == [".gitignore", "committed.py", "new.py", "site.yml", "staged.py"]


def test_main_has_changed_what_is_not_pushed(checkout: Path, tmp_path: Path) -> None:
    commit(checkout, "committed.py")
    write(checkout, "new.py")
    assert fast.changed_files() == ["new.py"], "nothing is pushed anywhere"
    git(tmp_path, "clone", str(checkout), "clone")
    git(checkout, "remote", "add", "origin", str(tmp_path / "clone"))
    git(checkout, "fetch", "origin")
    commit(checkout, "later.py")
    assert fast.changed_files() == ["later.py", "new.py"]


def test_all_is_looked_at_where_nothing_can_be_told(checkout: Path) -> None:
    git(checkout, "branch", "--move", "other")
    assert fast.changed_files() is None
    assert [step.name for step in fast.fast_steps()] == list(fast.FAST)
    assert {step.name: step for step in linters()}["lint-ruff"] in fast.fast_steps()


def test_linters_look_at_their_own_files_and_at_all_when_settings_change(checkout: Path) -> None:
    write(checkout, "new.py", "docs/x.yml")
    commands = {step.name: step.command for step in fast.fast_steps()}
    assert "lint-ansible" not in commands, "nothing of Ansible's has changed"
    assert list(commands["lint-ruff"][-2:]) == ["check", "new.py"]
    assert list(commands["lint-yaml"][-2:]) == ["--strict", "docs/x.yml"]
    (checkout / ".ansible-lint").write_text("profile: min\n")
    (checkout / ".yamllint").write_text("extends: relaxed\n")
    commands = {step.name: step.command for step in fast.fast_steps()}
    assert list(commands["lint-ansible"][-2:]) == ["--offline", "-q"]
    assert commands["lint-yaml"][-1] == "."


def test_error_in_a_changed_file_fails(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fast, "FAST", {name: kind for name, kind in fast.FAST.items() if kind})
    for name in WRONG:
        (checkout / name).write_text(WELL[name] + "# changed\n")
    assert suite.main(["fast"]) == 0, capsys.readouterr().out
    for name, (well, wrong, _) in WRONG.items():
        (checkout / name).write_text(WELL[name].replace(well, wrong))
    assert suite.main(["fast"]) == 1
    shown = capsys.readouterr().out
    assert [problem for *_, problem in WRONG.values() if problem not in shown] == []
