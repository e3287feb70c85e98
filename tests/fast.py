"""The steps of ``make test-fast``: linters on what the branch has changed, mypy, and the unit tests."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace

from tests.steps import ROOT, Step, steps

# With a linter that takes files: how the names of its settings begin, and of which names its files are.
FAST: dict[str, tuple[str, str] | None] = {
    "unit": None,
    "lint-mypy": None,
    "lint-ansible": (".ansible-lint", r"(site|(.*/)?(playbooks|roles|molecule)/.*)\.ya?ml"),
    "lint-ruff": ("pyproject.toml", r".*\.py"),
    "lint-format": ("pyproject.toml", r".*\.py"),
    "lint-yaml": (".yamllint", r".*\.ya?ml"),
    "lint-shell": None,  # all scripts take a second
}
# The main branch as others have it, by the first name that a clone knows; the last where nothing is pushed.
MAIN = ("origin/HEAD", "main@{upstream}", "origin/main", "main")


def git(*arguments: str) -> list[str]:
    """The lines that git prints of this checkout; none where it fails."""
    command = ["git", "-c", "core.quotePath=false", *arguments]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return [] if shown.returncode else shown.stdout.splitlines()


def changed_files() -> list[str] | None:
    """Files that differ from where this branch left the main one, new ones too; None where there is no such place.

    On the main branch that is the commit that others have, or, where none is pushed, the last one.
    """
    base = next((found[0] for name in MAIN if (found := git("merge-base", "HEAD", name))), None)
    if base is None:
        return None
    differing = git("diff", "--name-only", "--relative", "--diff-filter=d", base)
    return sorted({*differing, *git("ls-files", "--others", "--exclude-standard")})


def fast_steps() -> list[Step]:
    """The steps of FAST in its order, linters narrowed to what has changed; one that reads none of that is left out."""
    named = {step.name: step for step in steps()}
    changed = changed_files()
    return [step for name in FAST if (step := narrowed(named[name], changed))]


def narrowed(step: Step, changed: Sequence[str] | None) -> Step | None:
    """A step on the changed files of its kind, None where there are none; on all when that, or its settings, say so."""
    files_of = FAST[step.name]
    if changed is None or files_of is None or any(name.startswith(files_of[0]) for name in changed):
        return step
    files = [name for name in changed if re.fullmatch(files_of[1], name)]
    return replace(step, command=[*(word for word in step.command if word != "."), *files]) if files else None
