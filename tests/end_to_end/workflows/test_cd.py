"""From a commit to production by cd.yml as it is, run by act: the same digest everywhere, or production as it was.

act has no reviewers and no queues, so that here the job of production begins as soon as its plan is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.end_to_end.load.open_loop import BackgroundLoad, LoadReport
from tests.end_to_end.switch.site import REGISTRY, ComposeSite
from tests.end_to_end.workflows.runner import ACTOR, Run, Runner

SECONDS = 500
DEPLOYED = [(name, event) for name in ("staging", "prod") for event in ("start", "success")]
JOBS = ("gate", "image", "staging", "plan", "production")
SERVICE = "service/src/titanic_api"
# What is wrong with these is for an environment to find, not for a linter.
NEVER_READY = {
    f"{SERVICE}/__init__.py": """
import os
import time

if os.environ.get("TITANIC_BIND"):
    time.sleep(3600)"""
}
# It answers some requests, more than those of a trial, and then none.
ERRS = {
    f"{SERVICE}/fast_path.py": """
answer, asked = FastPath.__call__, []
def err(self, environ, start_response):
    if environ["PATH_INFO"].startswith("/people"):
        asked.append(1)
        if len(asked) > 60:
            raise RuntimeError("broken on purpose")
    return answer(self, environ, start_response)
FastPath.__call__ = err"""
}
# Once it has taken over, whose drain file is gone then.
BREAKS_A_PROMISE = {
    f"{SERVICE}/fast_path.py": """
import os  # noqa: E402, I001
answer = FastPath.__call__
def err(self, environ, start_response):
    drains = os.path.exists(os.environ.get("TITANIC_DRAIN_FILE", ""))  # noqa: PTH110
    if environ["PATH_INFO"] == "/openapi.json" and not drains:
        start_response("404 Not Found", [])
        return []
    return answer(self, environ, start_response)
FastPath.__call__ = err"""
}


def digest(site: ComposeSite) -> str:
    """The image that serves, by digest."""
    (image,) = {container["Config"]["Image"] for container in site.containers(site.colour())}
    return str(image)


def become(run: Run, until: str = "") -> None:
    """A run has come so far: the job that failed, or none, and nothing after it."""
    done = JOBS[: JOBS.index(until)] if until else JOBS
    expected = dict.fromkeys(done, "success") | ({until: "failure"} if until else {})
    assert (run.jobs, run.succeeded) == (expected, not until), run.output[-9000:]


@contextmanager
def under_load(site: ComposeSite, **more: Any) -> Iterator[dict[str, LoadReport]]:
    """Load on an environment while something happens; its report, which is whole afterwards."""
    found: dict[str, LoadReport] = {}
    with BackgroundLoad(site.load(rate=20, seconds=SECONDS, **more)) as load:
        yield found
        assert load.running, "the load ended before what it was for"
    found["all"] = load.report


@pytest.fixture(scope="session")
def first(runner: Runner) -> Run:
    """The first commit, which is good, from nothing to production."""
    run = runner.run("cd")
    become(run)
    return run


def test_a_good_commit_serves_everywhere_by_the_digest_that_was_signed(runner: Runner, first: Run) -> None:
    staging, prod = runner.sites.values()
    assert digest(staging) == digest(prod)
    assert digest(prod).startswith(f"{REGISTRY}/{runner.base.name}@sha256:")
    assert f"signed: {digest(prod)}" in first.output
    assert staging.rows() == prod.rows() == 887
    told = list(runner.listener.told)
    assert runner.listener.take() == DEPLOYED
    assert {entry["who"].partition("@")[0] for entry in told} == {ACTOR}
    assert told[-1]["release"] == prod.release()
    assert told[-1]["link"] == "https://github.com/example/titanic/actions/runs/1"
    # What the approver has read is what was done.
    plan = json.loads((runner.base / "runner/artifacts/plan/titanic.plan.json").read_text())
    assert prod.release().startswith(plan["targets"]["localhost"]["image"])


BAD = [
    pytest.param(NEVER_READY, "staging", "get ready|answer 200", id="never ready"),
    pytest.param(
        BREAKS_A_PROMISE,
        "staging",
        "it took over, and breaks a promise",
        id="smoke test",
        marks=pytest.mark.all_workflows,
    ),
    pytest.param(
        {f"{SERVICE}/db.py": "import json"}, "gate", "Remove unused import", id="gate", marks=pytest.mark.all_workflows
    ),
]


@pytest.mark.parametrize(("change", "job", "words"), BAD)
def test_a_bad_commit_leaves_production_as_it_is(
    runner: Runner, first: Run, change: dict[str, str], job: str, words: str
) -> None:
    staging, prod = runner.sites.values()
    before = (prod.release(), digest(prod), prod.ledger(), staging.release())
    runner.listener.take()
    runner.commit(change)
    with under_load(prod) as report:
        run = runner.run("cd")
    become(run, until=job)
    assert report["all"].clean, report["all"].summary()
    assert any(word in run.output for word in words.split("|")), run.output[-9000:]
    assert (prod.release(), digest(prod), prod.ledger(), staging.release()) == before
    assert runner.listener.take() == ([("staging", "start"), ("staging", "failure")] if job == "staging" else [])


@pytest.mark.all_workflows
def test_a_commit_that_errs_under_load_is_found_in_staging(runner: Runner, first: Run) -> None:
    staging, prod = runner.sites.values()
    before = (prod.release(), digest(prod), prod.ledger(), staging.release())
    runner.listener.take()
    runner.commit(ERRS)
    with under_load(staging, verify=False), under_load(prod) as report:
        run = runner.run("cd")
    become(run, until="staging")
    assert "under analysis" in run.output
    assert report["all"].clean, report["all"].summary()
    assert (prod.release(), digest(prod), prod.ledger(), staging.release()) == before
    assert runner.listener.take() == [("staging", "start"), ("staging", "failure")]


@pytest.mark.all_workflows
def test_a_commit_that_errs_under_the_load_of_production_alone_is_taken_back_there(runner: Runner, first: Run) -> None:
    prod = runner.sites["prod"]
    before = (prod.release(), digest(prod))
    runner.listener.take()
    runner.commit(ERRS)
    with under_load(prod) as report:
        run = runner.run("cd")
    become(run, until="production")
    assert "under analysis" in run.output
    assert (prod.release(), digest(prod)) == before
    assert prod.ledger()[-1]["outcome"] == "failed"
    # While it served it erred; no request was dropped, and no write that it has acknowledged is lost.
    seen = report["all"]
    assert set(seen.failed_by_kind) == {"status_500"}, seen.summary()
    assert seen.missing == seen.wrong == [], seen.summary()
    assert seen.failures[-1].at_seconds < seen.seconds - 1, "it errs no longer"
    assert runner.listener.take() == [*DEPLOYED[:3], ("prod", "failure")]


@pytest.mark.all_workflows
def test_a_good_commit_reaches_production_under_load_and_goes_back_by_hand(runner: Runner, first: Run) -> None:
    staging, prod = runner.sites.values()
    before = (prod.release(), digest(prod))
    runner.listener.take()
    runner.commit({f"{SERVICE}/__init__.py": "# another release"})
    with under_load(prod) as report:
        run = runner.run("cd")
        become(run)
        assert digest(prod) == digest(staging) != before[1]
        assert f"signed: {digest(prod)}" in run.output
        assert runner.listener.take() == DEPLOYED
        back = runner.run("operate", "workflow_dispatch", {"operation": "rollback", "environment": "prod"})
        assert back.succeeded, back.output[-9000:]
    assert report["all"].clean, report["all"].summary()
    assert (prod.release(), digest(prod)) == before
    assert runner.listener.take() == [("prod", "start"), ("prod", "rollback")]
    for operation in ("smoke", "drift"):
        asked = runner.run("operate", "workflow_dispatch", {"operation": operation, "environment": "prod"})
        assert asked.succeeded, asked.output[-9000:]
