"""For those who work on the service: a change of the source is served without a run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.switch.site import new_site

if TYPE_CHECKING:
    from tests.engine import Engine

SECONDS = 30


def test_a_change_of_the_source_is_served_without_a_run(engine: Engine | None) -> None:
    if engine is None:
        pytest.skip("a change of the source is for containers; processes are released in seconds")
    with new_site(engine) as site:
        site.inventory = "development"
        site.succeed()
        assert site.rows() == 887
        attempts = len(site.ledger())
        view = site.context / "src/titanic_api/service.py"
        text = view.read_text()
        view.write_text(text.replace("Welcome to", "Back at"))
        began = time.monotonic()
        while site.ask("/")[1]["message"] != "Back at the Titanic API":
            assert time.monotonic() - began < SECONDS, site.logs()
            time.sleep(0.2)
        assert len(site.ledger()) == attempts
        view.write_text(text)
        assert site.changed(site.succeed()) == 0
