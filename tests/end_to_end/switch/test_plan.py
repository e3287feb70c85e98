"""P2: a plan is made without a change, is done as it was made, and is refused when anything has moved since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.switch.site import COMPOSE, LOCAL

if TYPE_CHECKING:
    from tests.end_to_end.switch.site import ComposeSite, Site

PLAYBOOK = "playbooks/plan.yml"
SECRET = "hunter2-planned-secret-of-forty-three-chars"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Where the plan goes."""
    return tmp_path / "plan.json"


def with_plan(plan: Path) -> list[str]:
    return ["-e", f"titanic_plan={plan}"]


def words(output: str) -> str:
    """Output without its line breaks."""
    return " ".join(output.split())


# On containers molecule/default holds what a check says against what a run does.
@pytest.mark.first
@pytest.mark.shown_once("compose")
def test_what_is_planned_on_an_empty_target_is_done_and_nothing_else(first_site: Site, plan: Path) -> None:
    site = first_site
    site.settings["titanic_secrets_values"] = {"database_app_password": SECRET}
    output = site.succeed(*with_plan(plan), playbook=PLAYBOOK)
    assert site.left() == []
    for step in ("image: build", "secrets: write database_app_password", "api: deploy release"):
        assert step in output
    assert plan.stat().st_mode & 0o777 == 0o600
    assert SECRET not in plan.read_text() + output
    image = json.loads(plan.read_text())["targets"]["localhost"]["image"]

    if site.provider == "local":  # what is refused before a target is looked at is the same everywhere
        assert_another_run_is_refused(site, plan)
    assert site.ledger() == []

    site.succeed(*with_plan(plan))
    assert site.release().startswith(image)
    # It is done; to do it again is something else.
    assert "the last release in the ledger" in words(site.refuse(*with_plan(plan)))
    del site.settings["titanic_secrets_values"]  # kept on the target; a rotation makes another


def assert_another_run_is_refused(site: Site, plan: Path) -> None:
    """Another setting, a secret one too, or a part of the site alone: none of this touches anything."""
    for tag in ("api", "verify"):
        assert "nothing has been deployed here yet. Run the whole site first" in words(site.refuse("--tags", tag))
    assert site.left() == []
    kept = dict(site.settings)
    site.settings |= {"titanic_api_workers": 3, "titanic_secrets_values": {"database_app_password": SECRET[::-1]}}
    output = words(site.refuse(*with_plan(plan)))
    assert "titanic_api_workers, titanic_secrets_values. Look at the changes and write a new plan" in output
    assert SECRET[::-1] not in output
    site.settings = kept
    assert "a plan is of the whole site" in site.refuse(*with_plan(plan), "--tags", "target")


def images(site: ComposeSite) -> list[str]:
    """Names of what has been built."""
    return sorted(path.name for path in (site.state / "images").iterdir())


# What is compared differs between providers; how it is refused does not. The test above shows the two others.
@COMPOSE
def test_a_plan_is_refused_when_anything_has_moved(containers: ComposeSite, plan: Path) -> None:
    site = containers
    serves, attempts = site.release(), len(site.ledger())
    # What a service says is its own matter.
    source = site.context / "src/titanic_api/discovery.py"
    source.write_text(source.read_text().replace("Welcome to the Titanic API", "Welcome aboard"))
    promise = {"name": "it welcomes", "path": "/", "json": {"message": "Welcome aboard"}}
    arguments = [*with_plan(plan), "-e", json.dumps({"titanic_api_promises": [promise]})]
    output = site.succeed(*arguments, playbook=PLAYBOOK)
    assert "api: deploy release" in output
    assert (site.release(), len(site.ledger())) == (serves, attempts)
    planned, built = source.read_text(), images(site)
    site.change_service("PLANNED = False", "discovery")
    assert "titanic_plan: the source has changed since the plan was made" in words(site.refuse(*arguments))
    assert (site.release(), len(site.ledger()), images(site)) == (serves, attempts, built)

    source.write_text(planned)
    (proxy,) = site.containers("proxy")
    site.engine("pause", proxy["Id"])
    assert "changed since the plan was made at" in words(site.refuse(*arguments))
    site.engine("unpause", proxy["Id"])

    # Nothing of this has spoilt the plan.
    assert "1 promises asked, all kept" in site.succeed(*arguments)
    assert site.release() != serves
    assert "the last release in the ledger" in words(site.refuse(*arguments))


@LOCAL
def test_what_is_no_plan_is_refused_and_not_replaced(site: Site, plan: Path) -> None:
    assert "No such file or directory" in words(site.refuse(*with_plan(plan)))
    plan.write_text("{}")
    assert "not a plan that" in words(site.refuse(*with_plan(plan)))
    assert "not a plan that" in words(site.refuse(*with_plan(plan), playbook=PLAYBOOK))
    assert plan.read_text() == "{}"
