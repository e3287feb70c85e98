"""No secret leaves its file: recognisable ones are planted, then looked for in output, arguments and other files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deployment import Deployment, torn_down, workplace
from tests.interface import ROOT
from tests.planted import (
    MARK,
    assert_for_owners_alone,
    assert_in_use,
    assert_only_in_secret_files,
    assert_told_without_secrets,
    live,
)


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with workplace() as place:
        new = Deployment(place, ROOT, ROOT / "inventories/local")
        with torn_down(new, "site.yml", "--tags", "teardown") as deployment:
            yield deployment


@pytest.fixture(scope="module")
def output(deployment: Deployment) -> str:
    return live(deployment)


@pytest.mark.slow
def test_output_and_processes_hold_no_secret(output: str) -> None:
    assert "PLAY RECAP" in output
    assert MARK.decode() not in output


@pytest.mark.slow
def test_the_planted_secrets_are_the_ones_in_use(deployment: Deployment, output: str) -> None:
    assert_in_use(deployment)


@pytest.mark.slow
def test_the_capsule_of_a_failed_release_holds_no_secret(deployment: Deployment, output: str) -> None:
    assert_told_without_secrets(deployment, "write_tokens")


@pytest.mark.slow
def test_files_outside_of_secrets_hold_no_secret(deployment: Deployment, output: str) -> None:
    assert_only_in_secret_files(deployment)


@pytest.mark.slow
def test_secret_files_are_for_their_owner_alone(deployment: Deployment, output: str) -> None:
    assert_for_owners_alone(deployment)
