"""P3: releases and rollbacks under load drop no request, and nothing acknowledged is lost."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.load.open_loop import BackgroundLoad, LoadPlan, LoadReport, run_load
from tests.switch.site import ROOT, ComposeSite

if TYPE_CHECKING:
    from tests.switch.site import Site

README = ROOT / "README.md"
# TESTS_SWITCH_ROUNDS says how many instead.
ROUNDS = {"local": 10, "compose": 2}
# The client sends for a quarter of an hour at most.
ROUNDS_IN_A_LOAD = 5
# The first that the machine carries beside a build, told by the 90th percentile of its latency: a container that is
# asked for more than its share of the processor does not say in time that it is ready, with or without a release.
# TESTS_SWITCH_RATE says which one instead: both providers carry 200 on two cores, but not both at once.
REQUESTS_PER_SECOND = {"local": [60], "compose": [200, 100, 50, 25]}
CARRIED_MS = 150
STEADY_SECONDS = 5
# The promise is twice the steady 99th percentile. Where two cores carry the runs, the builds and this client beside
# what is tested, that measures the machine: one unrelated busy process makes it 3.6 times the steady one, an unrelated
# `docker run` six times. So it is printed, and what is asserted is that the front door found no request in a hundred
# without a release: it asks for 1800 ms then.
NOTICED_MS = 1800
AT_MOST_SECONDS = 880


def no_request_was_dropped(report: LoadReport) -> int:
    """How many writes were acknowledged; all of them are there, and every kind of request was sent and answered."""
    print(f"{report.rate:g} a second: {report.summary()}; {report.latency_ms['all']}", flush=True)
    assert report.clean, report.summary()
    assert report.sent_by_connection["new"] > 0
    assert report.sent_by_connection["reused"] > 0
    assert report.acknowledged > 0
    return report.acknowledged


@pytest.mark.timeout(5 * AT_MOST_SECONDS)
def test_releases_and_rollbacks_under_load_drop_nothing(crowded_site: Site) -> None:
    site = crowded_site
    rounds = int(os.environ.get("TESTS_SWITCH_ROUNDS", ROUNDS[site.provider]))
    first = site.release()
    served = {first}
    plan = LoadPlan(site.url, seconds=AT_MOST_SECONDS, post_share=0.2, new_connection_share=0.5)
    acknowledged = 0
    asked = os.environ.get("TESTS_SWITCH_RATE")
    for rate in [float(asked)] if asked else REQUESTS_PER_SECOND[site.provider]:
        plan = dataclasses.replace(plan, rate=rate)
        reading = dataclasses.replace(plan, post_share=0)
        steady = run_load(dataclasses.replace(reading, seconds=STEADY_SECONDS))
        with BackgroundLoad(reading) as load:
            site.change_service(f"RATE = {rate}")
            site.succeed("--tags", "image")
        print(f"{rate} a second: steady {steady.latency_ms['all']}, beside a build {load.report.latency_ms['all']}")
        if load.report.latency_ms["all"]["p90"] < CARRIED_MS:
            break
    for begin in range(0, rounds, ROUNDS_IN_A_LOAD):
        with BackgroundLoad(plan) as load:
            for number in range(begin, min(begin + ROUNDS_IN_A_LOAD, rounds)):
                site.change_service(f"RELEASE = {number}")
                site.succeed("--tags", "api")
                served.add(site.release())
                site.succeed("--tags", "rollback")
                assert site.release() == first, "a rollback goes to what served before"
            assert load.running, "the load ended before the releases did"
        acknowledged += no_request_was_dropped(load.report)
        assert load.report.latency_ms["all"]["p99"] < max(2 * steady.latency_ms["all"]["p99"], NOTICED_MS)
    assert len(served) == rounds + 1
    assert site.rows() == 887 + acknowledged


@pytest.mark.shown_once
def test_going_back_goes_further_back_or_refuses_and_never_forward(fresh_site: Site) -> None:
    site = fresh_site
    served = [site.release()]
    for number in range(2):
        site.change_service(f"RELEASE = {number}")
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
    if isinstance(site, ComposeSite):
        site.engine("rmi", *(name for name in site.engine.images(site.project) if served[1][:12] in name))
        gone = site.refuse("--tags", "rollback", "-e", f"titanic_rollback_to={served[1]}")
        assert "image or workload is gone" in gone, gone
        assert site.release() == served[2]


@pytest.mark.shown_once
def test_a_switch_without_a_drain_is_noticed(site: Site) -> None:
    """The test above can fail: stopping the serving colour at once drops requests, and the client counts them."""
    plan = LoadPlan(site.url, rate=60, seconds=120, post_share=0.2, delete_afterwards=True)
    with BackgroundLoad(plan) as load:
        time.sleep(1)
        site.kill(site.colour())
        site.succeed("--tags", "api")
    assert load.report.failed > 0
    assert not load.report.missing, "what was acknowledged is there all the same"


def test_a_run_that_changes_nothing_takes_as_few_modules_as_the_readme_says(site: Site) -> None:
    output = site.succeed("-vvv")
    executed = len(re.findall(r"EXEC /bin/sh -c|^Running module", output, flags=re.MULTILINE))
    said = re.search(r"executes (\d+) modules on a `local` target and (\d+) on a `compose` one", README.read_text())
    assert said
    assert executed == int(said[1 if site.provider == "local" else 2])
