# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Docker engine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, engine_problems
from ansible_collections.whitestar.deploy.tests.compose_backup_helpers import IMAGE, ContainerBackedUp
from ansible_collections.whitestar.deploy.tests.helpers import (
    IMAGES,
    TINY,
    TINY_DOCKERFILE,
    open_directory,
    remove_project,
)


@pytest.fixture(scope="session")
def engine_options() -> dict[str, Any]:
    """The Docker engine that the environment names, as modules are told of it, without a project.

    ``make lab`` brings one up with the images that the tests use, where a machine has none.
    """
    host, program = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"), shutil.which("docker")
    if program is None:
        pytest.skip("there is no docker client on PATH")
    if not host.startswith("unix://"):
        pytest.skip(f"the engine is not on this machine: DOCKER_HOST is {host}")
    found = {"socket": host.removeprefix("unix://"), "program": program}
    found |= {"configuration": os.environ["DOCKER_CONFIG"]} if "DOCKER_CONFIG" in os.environ else {}
    engine = DockerClient.of(found | {"project": "unit"})
    if problems := engine_problems(engine):
        pytest.skip(f"there is no Docker engine to use: {'; '.join(problems)}")
    if missing := [name for name in IMAGES if engine.image(name) is None]:
        pytest.skip(f"the engine has no {', '.join(missing)}: pull them, or run make lab")
    return found


def _project(engine_options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    options = engine_options | {"project": f"unit-{secrets.token_hex(4)}"}
    yield options
    remove_project(DockerClient.of(options))


@pytest.fixture(scope="module")
def engine(engine_options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The option ``engine`` with a project of the test module's own, of which nothing is left afterwards."""
    yield from _project(engine_options)


@pytest.fixture
def own_engine(engine_options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same for one test alone."""
    yield from _project(engine_options)


@pytest.fixture
def proxied(engine_options: dict[str, Any], place: Path) -> dict[str, Any]:
    """What the option ``engine`` has when the client's configuration names proxies, which do not answer."""
    usual = Path(engine_options.get("configuration", Path.home() / ".docker"))
    configuration = place / "configuration"
    configuration.mkdir()
    for name in ("cli-plugins", "buildx"):
        if (usual / name).is_dir():
            (configuration / name).symlink_to(usual / name)
    names = ("httpProxy", "httpsProxy", "ftpProxy", "allProxy", "noProxy")
    proxies = {"default": dict.fromkeys(names, "http://127.0.0.1:9")}
    (configuration / "config.json").write_text(json.dumps({"proxies": proxies}))
    return {"configuration": str(configuration)}


@pytest.fixture(scope="session")
def tiny_image(engine_options: dict[str, Any]) -> Iterator[str]:
    """The tiny release as a container image: its name, of which there is one for each process of the tests."""
    engine = DockerClient(**engine_options, project=f"unit-{secrets.token_hex(4)}")
    context = open_directory()
    (context / "Dockerfile").write_text(TINY_DOCKERFILE)
    (context / "tiny").write_text(TINY.format(python="/usr/local/bin/python3"))
    name = f"{engine.project}-tiny:1"
    try:
        engine.run("buildx", "build", "--load", "--provenance", "false", "--tag", name, str(context))
        yield name
    finally:
        remove_project(engine)
        shutil.rmtree(context)


@pytest.fixture(scope="session")
def backup_image(engine_options: dict[str, Any]) -> Iterator[str]:
    """PostgreSQL with pgBackRest, as the role titanic_backup has it built: its id."""
    engine = DockerClient(**engine_options, project=f"unit-{secrets.token_hex(4)}")
    name = f"{engine.project}-postgresql:1"
    try:
        engine.run("buildx", "build", "--load", "--provenance", "false", "--tag", name, str(IMAGE), seconds=600)
        yield str((engine.image(name) or {})["Id"])
    finally:
        remove_project(engine)


@pytest.fixture(scope="module")
def backed_up(engine: dict[str, Any], backup_image: str, tiny_image: str) -> Iterator[ContainerBackedUp]:
    """A deployment with backups and one full backup; tests that share it go on from what it has come to."""
    place = open_directory()
    site = ContainerBackedUp(place, engine, backup_image, tiny_image)
    try:
        assert not (done := site.prepare()).failed, done.message
        site.database()
        site.fill()
        site.deploy()
        assert not (done := site.run("compose_backup", state="first")).failed, done.message
        yield site
    finally:
        remove_project(site.engine)
        shutil.rmtree(place)
