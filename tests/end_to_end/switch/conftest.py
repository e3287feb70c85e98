"""Sites for each provider: the same tests drive processes, containers on an engine and pods on a cluster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.cluster import Cluster
from tests.end_to_end.switch.site import ComposeSite, HostSite, KubernetesSite, Site, copy_service, new_site
from tests.engine import Engine

PROVIDERS = ["local", "compose", "kubernetes"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--provider`` runs the tests of one provider; the suite has two of them side by side."""
    parser.addoption("--provider", choices=PROVIDERS, help="only the tests that deploy with this provider")


def provider_of(item: pytest.Item) -> str:
    """The provider that a test deploys with."""
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return str(params.get("engine", "compose"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the tests of one provider if that is asked for, those first that need a site on which nothing is.

    What processes have shown of the same code is left out on the others, or on those that the marker names: on
    containers unless TESTS_SWITCH_ALL is set, on a cluster unless it says kubernetes, since there it takes longest. An
    upgrade needs TESTS_UPGRADE_FROM, the commit that is upgraded from.
    """
    # The sort keeps the order of those that are equal.
    items.sort(key=lambda item: item.get_closest_marker("first") is None)
    everywhere = os.environ.get("TESTS_SWITCH_ALL", "")
    if wanted := config.getoption("--provider"):
        config.hook.pytest_deselected(items=[item for item in items if provider_of(item) != wanted])
        items[:] = [item for item in items if provider_of(item) == wanted]
    shown = [
        item
        for item in items
        if (once := item.get_closest_marker("shown_once")) and provider_of(item) in (once.args or PROVIDERS[1:])
    ]
    shown_again = {"": [], "kubernetes": PROVIDERS}.get(everywhere, ["compose"])
    left_out = [item for item in shown if provider_of(item) not in shown_again]
    if not os.environ.get("TESTS_UPGRADE_FROM"):
        left_out += [item for item in items if item.get_closest_marker("upgrade")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", params=PROVIDERS)
def engine(request: pytest.FixtureRequest) -> Engine | Cluster | None:
    """What a provider deploys to: None for the local one, an engine or a cluster, without which a test is skipped."""
    fixtures = {"compose": "container_engine", "kubernetes": "cluster"}
    found: Engine | Cluster | None = (
        request.getfixturevalue(fixtures[request.param]) if request.param in fixtures else None
    )
    return found


@pytest.fixture(scope="session")
def container_engine() -> Engine:
    """The engine, without which a test is skipped."""
    try:
        return Engine.found()
    except LookupError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, without which a test is skipped."""
    try:
        return Cluster.found()
    except LookupError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def empty_site(engine: Engine | Cluster | None) -> Iterator[Site]:
    """A site of the test's own, on which nothing has been deployed yet."""
    with new_site(engine) as site:
        yield site


@pytest.fixture(scope="session")
def first_site(engine: Engine | Cluster | None) -> Iterator[Site]:
    """The site that tests share, on which nothing has been deployed yet when the first of them gets it."""
    with new_site(engine) as site:
        yield site


@pytest.fixture(scope="session")
def served_site(first_site: Site) -> Site:
    """That site once it serves."""
    if not first_site.ledger():
        first_site.succeed()
    first_site.sound = first_site.release()
    return first_site


@pytest.fixture
def site(served_site: Site) -> Iterator[Site]:
    """The shared site, with the service's source as it is in the checkout before and after."""
    yield served_site
    shutil.rmtree(served_site.context)
    copy_service(served_site.context)


@pytest.fixture
def crowded_site(site: Site) -> Site:
    """The shared site, from now on with two replicas of each colour where there are any."""
    if site.provider != "local":
        site.settings["titanic_api_replicas"] = 2
        site.succeed("--tags", "api")
    return site


@pytest.fixture
def containers(site: Site) -> ComposeSite:
    """The shared site of the compose provider."""
    assert isinstance(site, ComposeSite)
    return site


@pytest.fixture
def host(site: Site) -> HostSite:
    """The shared site of a provider with two colours on one machine."""
    assert isinstance(site, HostSite)
    return site


@pytest.fixture
def pods(site: Site) -> KubernetesSite:
    """The shared site of the kubernetes provider."""
    assert isinstance(site, KubernetesSite)
    return site
