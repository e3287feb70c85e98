"""The table of promises is whole: every promise is proved with every provider, by tests that are there."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.steps import PROVIDERS, ROOT, promises

TABLE: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "tests/promises.yml").read_text())
CELLS = [(promise, provider) for promise in TABLE for provider in PROVIDERS]
SCENARIO = re.compile(r"molecule/(?P<scenario>[a-z]+)(@(?P<provider>[a-z]+))?::(?P<what>[a-z_]+)")


def ids(promise: str, provider: str) -> list[str]:
    """The tests of one cell."""
    found: list[str] = TABLE[promise].get(provider) or []
    return found


def test_the_promises_are_those_of_the_design() -> None:
    assert list(TABLE) == [f"P{number}" for number in range(1, 8)]
    assert all(cells["says"].endswith(".") for cells in TABLE.values())


@pytest.mark.parametrize(("promise", "provider"), CELLS)
def test_every_cell_is_filled(promise: str, provider: str) -> None:
    found = ids(promise, provider)
    assert found
    assert len(set(found)) == len(found), "one is there twice"


@pytest.mark.parametrize(("promise", "provider"), CELLS)
def test_every_scenario_asks_for_what_the_table_says(promise: str, provider: str) -> None:
    for name in ids(promise, provider):
        if not name.startswith("molecule/"):
            continue
        found = SCENARIO.fullmatch(name)
        assert found, name
        configuration = yaml.safe_load((ROOT / "molecule" / found["scenario"] / "molecule.yml").read_text()) or {}
        sequence = configuration.get("scenario", {}).get("test_sequence", [])
        asked = promises(found["scenario"]).get(found["provider"] or provider)
        assert asked, f"{found['scenario']} asks for nothing there"
        assert found["what"] in (*asked, *sequence), name


def test_every_test_is_there() -> None:
    """As pytest finds them where the suite looks, so that one that is left out with that provider is none."""
    wanted = {
        name for promise, provider in CELLS for name in ids(promise, provider) if not name.startswith("molecule/")
    }
    files = sorted({name.partition("::")[0] for name in wanted})
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *files]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stdout[-2000:]
    assert sorted(wanted - set(listed.stdout.splitlines())) == []
