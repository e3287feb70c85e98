# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are made once, reach those alone that read them, are told of by their names, and go when nobody uses them."""

from __future__ import annotations

import base64
import re
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import PREFIX, SECRETS, secret_names
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import KEY, decoded
from ansible_collections.whitestar.deploy.tests.cluster_helpers import DEBIAN, USER, Space
from ansible_collections.whitestar.deploy.tests.helpers import Result

READERS = {"titanic-owner": ["owner_password"], "titanic-api": ["app_password", "write_tokens"], "titanic-tls": ["key"]}
GENERATED = ["owner_password", "app_password"]


def keep(space: Space, *, check: bool = False, **options: Any) -> Result:
    given = {"generated": GENERATED, "readers": READERS} | options
    return space.run("kubernetes_secrets", check=check, **given)


def kept(space: Space) -> dict[str, str]:
    return decoded(space.get("secret", SECRETS))


def names(space: Space) -> dict[str, str]:
    """The Secret that stands for each reader."""
    with KubernetesClient.of(space.options) as cluster:
        return secret_names(cluster)


def forms(value: str) -> set[str]:
    """What a secret may look like in an output."""
    return {value, base64.b64encode(value.encode()).decode()}


def told(results: list[Result], values: dict[str, str]) -> set[str]:
    """The names of secrets whose values are in what modules said."""
    said = "".join(result.output for result in results)
    return {name for name, value in values.items() if any(form in said for form in forms(value))}


def test_twelve_steps(own_space: Space) -> None:
    """From nothing, with one that is given, without it again; each in check mode and for real, and again."""
    space, said = own_space, []
    before = space.versions()
    said.append(keep(space, check=True))
    assert said[-1]["written"] == GENERATED
    assert said[-1]["diff"] == {"before": "", "after": "owner_password: a new secret\napp_password: a new secret\n"}
    assert space.versions() == before
    said.append(keep(space))
    assert said[-1]["written"] == GENERATED
    first, standing = kept(space), names(space)
    assert set(first) == {*GENERATED, KEY}
    assert len(first["owner_password"]) >= 32
    assert set(standing) == {"titanic-owner", "titanic-api"}, "a reader that reads nothing has a Secret"
    for reader, name in standing.items():
        made = space.get("secret", name)
        assert made["immutable"] is True
        assert made["type"] == "Opaque"
        assert re.fullmatch(rf"{reader}-[0-9a-f]{{10}}", name)
    assert decoded(space.get("secret", standing["titanic-owner"])) == {"owner_password": first["owner_password"]}
    after = space.versions()
    for check in (True, False):
        said.append(keep(space, check=check))
        assert (said[-1].changed, said[-1]["written"]) == (False, [])
    assert space.versions() == after

    given = {"write_tokens": "planted-token", "app_password": "planted-app-password"}
    for check in (True, False):
        said.append(keep(space, check=check, given=given))
        assert said[-1]["written"] == ["write_tokens", "app_password"]
        assert (space.versions() == after) is check
    second, now = kept(space), names(space)
    assert second == first | given
    assert decoded(space.get("secret", now["titanic-api"])) == given
    assert now["titanic-owner"] == standing["titanic-owner"], "whoever reads no changed secret would be started anew"
    assert now["titanic-api"] != standing["titanic-api"]
    assert space.get("secret", standing["titanic-api"]), "who serves still reads it"
    after = space.versions()
    for check in (True, False):
        said.append(keep(space, check=check, given=given))
        assert not said[-1].changed
    assert space.versions() == after

    for check in (True, False):
        said.append(keep(space, check=check, given={"app_password": "planted-app-password"}))
        assert said[-1]["written"] == ["write_tokens"]
        assert (space.versions() == after) is check
    assert set(kept(space)) == set(first)
    assert space.get("secret", standing["titanic-api"]) is None, "nothing uses it any longer"
    for check in (True, False):
        said.append(keep(space, check=check, given={"app_password": "planted-app-password"}))
        assert not said[-1].changed

    # The namespace's owner reads them all, so that none gets into what is written for people.
    with KubernetesClient.of(space.options) as cluster:
        assert dict(ClusterRecords(cluster).secrets()) == kept(space)
    assert told(said, first | second) == set()


def test_a_secret_that_a_pod_reads_stays_until_it_reads_it_no_longer(space: Space) -> None:
    keep(space, given={"key": "planted-1"})
    old = names(space)["titanic-tls"]
    container = {
        "name": "reader",
        "image": DEBIAN,
        "command": ["sleep", "600"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    hardened = {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "containers": [container],
        "securityContext": hardened,
        "volumes": [{"name": "s", "secret": {"secretName": old}}],
    }
    space.make({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"}, "spec": spec})
    for value in ("planted-2", "planted-3"):
        keep(space, given={"key": value})
        assert space.get("secret", old)
    space.kubectl("delete", "pod", "reader", "--force", "--grace-period=0")
    keep(space, given={"key": "planted-4"})
    assert space.get("secret", old) is None
    # The one before and the one now.
    assert len(space.names("secret", f"{PREFIX}reader=titanic-tls")) == 2


def test_a_secret_that_somebody_removed_is_made_again(space: Space) -> None:
    keep(space)
    standing = names(space)
    space.kubectl("delete", "secret", standing["titanic-owner"])
    for check in (True, False):
        assert keep(space, check=check).changed
    assert names(space) == standing
    assert space.get("secret", standing["titanic-owner"])
    assert not keep(space).changed


def test_secrets_of_others_are_left_alone(space: Space) -> None:
    space.make({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}, "stringData": {"a": "b"}})
    keep(space, given={"key": "planted-5"})
    keep(space, given={"key": "planted-6"})
    assert space.get("secret", "theirs")


def test_a_secret_has_the_type_and_the_names_that_its_reader_wants(space: Space) -> None:
    tls = {"titanic-front": {"tls.crt": "certificate", "tls.key": "key"}}
    given = {"certificate": "planted-certificate", "key": "planted-key"}
    done = keep(space, readers=READERS | tls, types={"titanic-front": "kubernetes.io/tls"}, given=given)
    made = space.get("secret", names(space)["titanic-front"])
    assert made["type"] == "kubernetes.io/tls"
    assert decoded(made) == {"tls.crt": "planted-certificate", "tls.key": "planted-key"}
    assert told([done], given) == set()


def test_a_wrong_secret_keeps_all_from_being_written(space: Space) -> None:
    before = space.versions()
    failed = keep(space, given={"good": "planted-good", "Wrong": "planted-wrong"})
    assert "'Wrong' is no name of a secret" in failed.message
    assert "planted" not in failed.output
    assert space.versions() == before
