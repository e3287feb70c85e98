"""P3: releases and rollbacks under load drop no request, and nothing acknowledged is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.load.open_loop import BackgroundLoad, LoadPlan

if TYPE_CHECKING:
    from tests.switch.conftest import Site

ROUNDS = 10
REQUESTS_PER_SECOND = 60
AT_MOST_SECONDS = 880


@pytest.mark.timeout(AT_MOST_SECONDS + 300)
def test_ten_releases_and_ten_rollbacks_drop_nothing(fresh_site: Site) -> None:
    site = fresh_site
    first = site.release()
    served = {first}
    plan = LoadPlan(
        site.url, rate=REQUESTS_PER_SECOND, seconds=AT_MOST_SECONDS, post_share=0.2, new_connection_share=0.5
    )
    with BackgroundLoad(plan) as load:
        for number in range(ROUNDS):
            site.change_service(f"# release {number}")
            site.succeed("--tags", "api")
            served.add(site.release())
            site.succeed("--tags", "rollback")
            assert site.release() == first, "a rollback goes to what served before"
        assert load.running, "the load ended before the releases did"
    report = load.report
    print(report.summary())
    assert report.clean, report.summary()
    assert report.sent_by_connection["new"] > 0
    assert report.sent_by_connection["reused"] > 0
    assert report.acknowledged > 0
    assert len(served) == ROUNDS + 1
    assert site.rows() == 887 + report.acknowledged


def test_going_back_goes_further_back_or_refuses_and_never_forward(fresh_site: Site) -> None:
    site = fresh_site
    served = [site.release()]
    for number in range(2):
        site.change_service(f"# {number}")
        site.succeed("--tags", "api")
        served.append(site.release())
    for expected in (served[1], served[0]):
        site.succeed("--tags", "rollback")
        assert site.release() == expected
    assert "there is nothing further back" in site.refuse("--tags", "rollback")
    assert site.release() == served[0]
    site.succeed("--tags", "rollback", "-e", f"titanic_rollback_to={served[2]}")
    assert site.release() == served[2], "a named release may also be a later one"
    site.refuse("--tags", "rollback", "-e", "titanic_rollback_to=unknown")
    assert site.release() == served[2]
    assert site.rows() == 887


def test_a_switch_without_a_drain_is_noticed(site: Site) -> None:
    """The test above can fail: stopping the serving colour at once drops requests, and the client counts them."""
    plan = LoadPlan(site.url, rate=REQUESTS_PER_SECOND, seconds=120, post_share=0.2, delete_afterwards=True)
    with BackgroundLoad(plan) as load:
        time.sleep(1)
        site.kill(site.colour())
        site.succeed("--tags", "api")
    assert load.report.failed > 0
    assert not load.report.missing, "what was acknowledged is there all the same"
