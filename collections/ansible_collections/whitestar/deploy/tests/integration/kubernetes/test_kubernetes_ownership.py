# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A namespace of others, and what is in it, is refused by name, or used without a change to what is theirs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.tests.cluster_helpers import Space
from ansible_collections.whitestar.deploy.tests.helpers import OWNER, SERVICE, Result

THEIRS: list[dict[str, Any]] = [
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "titanic-secrets"},
        "stringData": {"password": "theirs"},
    },
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "green"}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "titanic-api"}, "spec": {"ports": [{"port": 80}]}},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop"}},
]


@pytest.fixture
def shop(kubernetes_options: dict[str, Any]) -> Iterator[Space]:
    """Somebody's namespace, with things of theirs, two of which have names that ours have."""
    found = Space(kubernetes_options | {"namespace": f"shop-{secrets.token_hex(4)}"})
    found.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": found.name}})
    found.make(*THEIRS)
    yield found
    found.kubectl("delete", "namespace", found.name, "--wait=false", check=False)


def begin(space: Space, *, check: bool = False, **options: Any) -> Result:
    return space.run("kubernetes_lock", check=check, state="present", owner=OWNER, **options)


def theirs(space: Space) -> dict[str, str]:
    """What they made, with its version; and the namespace itself."""
    names = {f"{thing['kind']} {thing['metadata']['name']}" for thing in THEIRS}
    found = {name: version for name, version in space.versions().items() if name in names}
    return found | {"namespace": space.get("namespace", space.name)["metadata"]["resourceVersion"]}


def test_a_namespace_of_others_is_refused_and_left_as_it_was(shop: Space) -> None:
    before = shop.versions() | theirs(shop)
    for check in (True, False):
        message = begin(shop, check=check).message
        assert message.startswith(
            f"titanic_project: namespace {shop.name} is there and was made by somebody else. Choose another"
        )
        assert "titanic_target_namespace_adopt" in message
    assert shop.versions() | theirs(shop) == before


def test_what_has_our_names_in_a_namespace_of_others_is_refused_by_name(shop: Space) -> None:
    before = shop.versions()
    message = begin(shop, adopt=True).message
    for thing in ("Secret titanic-secrets", "Service titanic-api"):
        assert f"titanic_project: {thing} in namespace {shop.name} is not of this deployment" in message
    assert "settings" not in message
    assert shop.versions() == before


@pytest.mark.parametrize("name", ["titanic-stages", "titanic-ledger", "titanic-deploy"])
def test_what_has_the_name_of_a_record_and_is_of_others_is_no_record(shop: Space, name: str) -> None:
    shop.kubectl("delete", "secret", "titanic-secrets")
    if name == "titanic-deploy":
        shop.make({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {}})
    else:
        shop.make({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"api": "not JSON"}})
    before = shop.versions()
    message = begin(shop, adopt=True).message
    for thing in (f"{'Lease' if name == 'titanic-deploy' else 'ConfigMap'} {name}", "Service titanic-api"):
        assert f"{thing} in namespace {shop.name} is not of this deployment" in message
    assert shop.versions() == before


def test_a_namespace_of_others_is_left_by_a_teardown_with_what_is_theirs(shop: Space) -> None:
    for kind, name in (("secret", "titanic-secrets"), ("service", "titanic-api")):
        shop.kubectl("delete", kind, name)
    before = theirs(shop)
    assert not begin(shop, adopt=True).failed
    ours = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "titanic-api"}}
    assert shop.keep("target", [ours]).changed
    assert not begin(shop, adopt=True).failed, "what is ours is known again"
    told = begin(shop).message
    assert "was made by somebody else" in told, "not without being asked to"
    assert shop.run("kubernetes_lifecycle", probes=SERVICE["probes"], state="absent", address="127.0.0.1:9").changed
    assert theirs(shop) == before
    assert "titanic-api" not in shop.names("serviceaccount")
    assert shop.names("configmap") == ["kube-root-ca.crt", "settings"]


def test_an_object_of_others_that_a_stage_would_replace_is_refused(own_space: Space) -> None:
    own_space.make({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": {"a": "1"}})
    wanted = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "2"}}
        for name in ("first", "theirs")
    ]
    for check in (True, False):
        message = own_space.keep("one", wanted, check=check).message
        assert message.startswith("ConfigMap theirs is not of this deployment. Choose another namespace")
    assert own_space.get("configmap", "theirs")["data"] == {"a": "1"}
    assert own_space.get("configmap", "first") is None
