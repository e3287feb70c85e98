# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real cluster of Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient as Kubernetes
from ansible_collections.whitestar.deploy.tests.cluster_helpers import (
    DEBIAN,
    POSTGRES,
    PYTHON,
    Space,
    lab_options,
    namespace,
)
from ansible_collections.whitestar.deploy.tests.helpers import (
    wait_for,
)


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
