"""No secret leaves its file on a Docker engine either: not into containers' descriptions, images, volumes or logs."""

from __future__ import annotations

import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment import Deployment, torn_down, workplace
from tests.engine import Engine
from tests.interface import ROOT
from tests.secret_scan import (
    MARK,
    assert_for_owners_alone,
    assert_in_use,
    assert_only_in_secret_files,
    assert_told_without_secrets,
    live,
)

PROJECT = f"titanic-test-{uuid.uuid4().hex[:8]}"
# What is in each of the image's layers' files, to see that they were searched.
KNOWN = b"titanic_api"
CHUNK = 1 << 20

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine() -> Engine:
    try:
        return Engine.found()
    except LookupError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def deployment(engine: Engine) -> Iterator[Deployment]:
    with workplace() as place:
        new = Deployment(place, ROOT, ROOT / "inventories/compose")
        new.state = Path("/var/lib" if os.geteuid() == 0 else tempfile.gettempdir()) / PROJECT
        with torn_down(new, "site.yml", "--tags", "teardown") as deployment:
            yield deployment
        left = engine.left(PROJECT, PROJECT)
        engine.clear(PROJECT, PROJECT)
        assert left == []
        assert not new.state.exists()


@pytest.fixture(scope="module")
def output(deployment: Deployment, engine: Engine) -> str:
    own = {"titanic_project": PROJECT, "titanic_image_repository": PROJECT}
    return live(deployment, **engine.variables, **own)


@pytest.fixture(scope="module")
def containers(engine: Engine, output: str) -> list[str]:
    found = engine.containers(PROJECT)
    assert len(found) == 3
    return found


def test_output_and_processes_hold_no_secret(output: str) -> None:
    assert "PLAY RECAP" in output
    assert MARK.decode() not in output


def test_the_planted_secrets_are_the_ones_in_use(deployment: Deployment, output: str) -> None:
    assert_in_use(deployment)


def test_the_failure_report_of_a_failed_release_holds_no_secret(deployment: Deployment, output: str) -> None:
    assert_told_without_secrets(deployment, "write_tokens", "database_app_password")


def test_files_and_volumes_hold_no_secret(deployment: Deployment, engine: Engine, containers: list[str]) -> None:
    assert (deployment.state / "project/compose.yaml").is_file()
    assert (deployment.state / "ledger.json").is_file()
    for name in ("sbom.cdx.json", "provenance.json"):
        assert list((deployment.state / "images").glob(f"*/{name}"))
    listed = engine("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}").split()
    volumes = [Path(volume["Mountpoint"]) for volume in engine.inspect("volume", *listed)]
    # An engine in a machine of its own keeps its volumes there.
    assert_only_in_secret_files(deployment, *(path for path in volumes if path.is_dir()))


def test_secret_files_are_for_their_owner_alone(deployment: Deployment, output: str) -> None:
    assert_for_owners_alone(deployment)


def test_descriptions_and_logs_of_containers_hold_no_secret(engine: Engine, containers: list[str]) -> None:
    described = engine("container", "inspect", *containers) + engine("network", "inspect", f"{PROJECT}_data")
    assert "database_app_password" in described, "the files' names, which are no secrets, should be there"
    for container in containers:
        done = engine.run("logs", container)
        described += done.stdout + done.stderr + engine("diff", container)
    assert MARK.decode() not in described


def test_images_hold_no_secret(engine: Engine, containers: list[str]) -> None:
    (image, *_) = names = engine.images(PROJECT)
    described = "".join(engine("history", "--no-trunc", name) + engine("image", "inspect", name) for name in names)
    assert MARK.decode() not in described
    with subprocess.Popen([engine.program, "save", image], stdout=subprocess.PIPE) as saving:
        assert saving.stdout
        found, before = {MARK: False, KNOWN: False}, b""
        while chunk := saving.stdout.read(CHUNK):
            text = before + chunk
            found = {word: seen or word in text for word, seen in found.items()}
            before = chunk[-max(map(len, found)) :]
    assert saving.returncode == 0
    assert found == {MARK: False, KNOWN: True}
