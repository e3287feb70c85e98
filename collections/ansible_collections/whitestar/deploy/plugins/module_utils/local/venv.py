# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Immutable directories that hold one Python environment each, named by the hash of everything that went in."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    copy_tree,
    make_directory,
    read_json,
    stable_hash,
    tree_hash,
    umask,
    write_json,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.package_index import uv_variables
from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report

LAYOUT = 1
MARKER = "image.json"
OPEN = 0o055  # everybody may read and enter
UV_SECONDS = 600
# All there is, with every processor. A file that cannot be compiled cannot be imported either, and is left.
COMPILE = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2, workers=0)"


class BuildError(RuntimeError):
    """The environment could not be built; the message holds the tool's own words. Nothing half-built is left."""


@dataclass(frozen=True)
class Environment:
    """What goes into the directory: a hash-locked requirements file, an interpreter, perhaps a project's tree."""

    parent: Path
    requirements: Path
    python: str
    project: Path | None = None
    exclude: Sequence[str] = field(default_factory=tuple)

    def identity(self) -> str:
        """SHA-256 (hex) of the inputs: tree, requirements, interpreter version and our own layout.

        Raises BuildError when the interpreter cannot be asked, and OSError for an unreadable file.
        """
        tree = tree_hash(self.project, self.exclude) if self.project else ""
        requirements = self.requirements.read_text(encoding="utf-8")
        return stable_hash([LAYOUT, tree, requirements, interpreter_version(self.python)])

    def directory(self) -> Path:
        """Where it lives: the first 12 digits of the identity below ``parent``."""
        return self.parent / self.identity()[:12]

    def build(self, describe: Sequence[str] = ()) -> dict[str, Any]:
        """Build it; the marker file, written last, makes it complete. Returns what the marker holds.

        ``describe`` is a command, relative to ``bin/``, whose standard output is kept in the marker.
        """
        directory = self.directory()
        if directory.exists():
            shutil.rmtree(directory)
        make_directory(self.parent, 0o755)
        make_directory(directory, 0o755)
        try:
            # Other accounts run what is in it: PostgreSQL's own where root deploys.
            with umask(0o022):
                self._install(directory)
            facts = {"identity": self.identity(), "python": interpreter_version(self.python)}
            if describe:
                facts["description"] = _described([str(directory / "bin" / describe[0]), *describe[1:]])
            write_json(directory / MARKER, facts)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return facts

    def _install(self, directory: Path) -> None:
        uv, python = uv_command(), str(directory / "bin" / "python")
        _run([*uv, "venv", "--quiet", "--allow-existing", "--python", self.python, str(directory)], uv_environment())
        report(f"install the packages of {self.requirements.name}")
        install = [*uv, "pip", "install", "--quiet", "--python", python]
        _run([*install, "--require-hashes", "--requirement", str(self.requirements)], uv_environment())
        if self.project:
            report(f"build and install {self.project.name}")
            source = directory / "source"
            copy_tree(self.project, source, self.exclude)
            # uv builds a project of its own backend itself, so no build tool is fetched outside the lock.
            _run([*install, "--no-deps", str(source)], uv_environment())
            shutil.rmtree(source)
        if before := newest(self.parent):
            take_bytecode(before, directory)
        report("compile what was installed")
        _run([python, "-c", COMPILE, str(directory / "lib")], {})


def newest(parent: Path) -> Path | None:
    """The complete directory below ``parent`` that was made last, if there is one."""
    made = [path for path in parent.iterdir() if not path.is_symlink() and marker(path) is not None]
    return max(made, key=lambda path: (path / MARKER).stat().st_mtime, default=None)


def take_bytecode(before: Path, directory: Path) -> None:
    """Link the bytecode of an earlier directory: to compile is nine tenths of the work of a build.

    Python takes it for files of the same time and size, such as uv links out of its cache, and compiles the others.
    """
    for path in before.glob("lib/python*/site-packages/**/__pycache__/*.pyc"):
        link = directory / path.relative_to(before)
        if (link.parent.parent / f"{path.name.partition('.')[0]}.py").is_file():
            link.parent.mkdir(exist_ok=True)
            link.hardlink_to(path)


def marker(directory: Path) -> dict[str, Any] | None:
    """What the marker of a complete directory holds; None if it is missing, half built or closed to other accounts."""
    found = read_json(directory / MARKER, None)
    return found if isinstance(found, dict) and directory.stat().st_mode & OPEN == OPEN else None


def interpreter_version(python: str) -> str:
    """Such as ``cpython 3.13.0 x86_64``. Raises BuildError if it does not start."""
    code = "import platform as p; print(p.python_implementation().lower(), p.python_version(), p.machine())"
    return _run([python, "-c", code], {}).strip()


def uv_command() -> list[str]:
    """How to call uv: the one beside this interpreter, otherwise the one on PATH. Raises BuildError."""
    if importlib.util.find_spec("uv"):
        return [sys.executable, "-m", "uv"]
    found = shutil.which("uv")
    if not found:
        raise BuildError(f"uv is not installed for {sys.executable}. Install it there with 'pip install uv'.")
    return [found]


def uv_environment() -> dict[str, str]:
    """Settings for uv: the machine's certificates, and where pip has been told that packages come from."""
    settings = {"UV_SYSTEM_CERTS": "1", "UV_NO_PROGRESS": "1", "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    return settings | uv_variables(os.environ)


def _described(command: Sequence[str]) -> str:
    text = _run(command, {})
    try:
        known = isinstance(json.loads(text), dict)
    except ValueError:
        known = False
    if not known:
        raise BuildError(f"'{' '.join(command)}' must print a JSON object, it printed: {text[:200].strip()}")
    return text


def _run(command: Sequence[str], extra: dict[str, str]) -> str:
    # Nothing of the controller's own environment may choose another interpreter or module path.
    environment = {key: value for key, value in os.environ.items() if not re.match(r"PYTHON|VIRTUAL_ENV", key)} | extra
    try:
        done = subprocess.run(
            list(command), env=environment, capture_output=True, text=True, timeout=UV_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        raise BuildError(f"'{' '.join(command)}' failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
