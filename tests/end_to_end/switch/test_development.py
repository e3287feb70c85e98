"""For those who work on the service: a change of the source is served without a run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.end_to_end.switch.site import new_site

if TYPE_CHECKING:
    from tests.engine import Engine

SECONDS = 30


def test_a_change_of_the_source_is_served_without_a_run(container_engine: Engine) -> None:
    with new_site(container_engine) as site:
        site.inventory = "development"
        site.succeed()
        assert site.rows() == 887
        attempts = len(site.ledger())
        view = site.context / "src/titanic_api/discovery.py"
        text = view.read_text()
        view.write_text(text.replace("Welcome to", "Back at"))
        began = time.monotonic()
        while (site.ask("/")[1] or {}).get("message") != "Back at the Titanic API":
            assert time.monotonic() - began < SECONDS, site.logs()
            time.sleep(0.2)
        assert len(site.ledger()) == attempts
        view.write_text(text)
        assert site.changed(site.succeed()) == 0
