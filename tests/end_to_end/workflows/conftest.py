"""A runner of workflows for the tests, and which of them are run in the gate."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bin import cosign
from tests.end_to_end.workflows.runner import Runner, new_runner
from tests.engine import Engine


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the gate has no time for, unless TESTS_WORKFLOWS_ALL is set."""
    if not os.environ.get("TESTS_WORKFLOWS_ALL"):
        left_out = [item for item in items if item.get_closest_marker("all_workflows")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """A runner with nothing deployed yet; where nothing may be left out, an engine and cosign have to be there."""
    try:
        engine, program = Engine.found(), cosign.program()
    except (LookupError, cosign.FetchError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    if os.geteuid() != 0 or not Path(sys.executable).with_name("act").is_file():
        pytest.skip("act and root are needed: a job's files are root's")
    base = Path(f"/var/lib/titanic-test-{uuid.uuid4().hex[:8]}")
    base.mkdir()
    try:
        with new_runner(engine, program, base) as found:
            yield found
    finally:
        shutil.rmtree(base, ignore_errors=True)
