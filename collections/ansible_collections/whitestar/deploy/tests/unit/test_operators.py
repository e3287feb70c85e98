# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators say of their objects is understood, and what others write is followed; no cluster is asked."""

from __future__ import annotations

import base64
from typing import Any, cast

import pytest
from ansible_collections.whitestar.deploy.plugins.filter.workload import (
    SYSTEM_AUTHORITIES,
    database_address,
    database_connection,
    database_environment,
    database_secret_files,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes import external_secrets as module
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import (
    CONTENT,
    content_mark,
    resolved,
    with_secret_hash,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.external_secrets import ensure_synced, synced
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.readiness import healthy, said_of
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import KEY
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.modules.kubernetes_secrets import of_readers

STORE = {"apiVersion": "external-secrets.io/v1", "kind": "SecretStore", "metadata": {"name": "titanic"}}


class Kept:
    """The part of a cluster that these functions use: objects by kind and name."""

    def __init__(self, *things: dict[str, Any]) -> None:
        self.things = {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}

    def get(self, _api_version: str, kind: str, name: str) -> dict[str, Any] | None:
        return self.things.get((kind, name))

    def apply(self, wanted: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        found = self.things.get((wanted["kind"], wanted["metadata"]["name"]), {})
        if not check:
            self.things[wanted["kind"], wanted["metadata"]["name"]] = found | wanted
        return found | wanted

    try_apply = apply

    def address(self, *words: str) -> str:
        return "/".join(words)

    def request(self, *_words: Any, **_query: str) -> dict[str, Any]:
        return {}


def asked(*things: dict[str, Any]) -> KubernetesClient:
    return cast("KubernetesClient", Kept(*things))


def secret(**values: str) -> dict[str, Any]:
    data = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    return {"kind": "Secret", "metadata": {"name": "titanic-api", "uid": "1b4e"}, "data": data}


def deployment(name: str) -> dict[str, Any]:
    volumes = [{"name": "secrets", "secret": {"secretName": name}}, {"name": "scratch", "emptyDir": {}}]
    template = {"metadata": {"annotations": {"a": "b"}}, "spec": {"volumes": volumes}}
    return {"kind": "Deployment", "metadata": {"name": "titanic-api"}, "spec": {"template": template}}


def marks(thing: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = thing["spec"]["template"]["metadata"]["annotations"]
    return found


def test_pods_follow_a_secret_that_keeps_its_name() -> None:
    first = with_secret_hash(asked(secret(password="planted-1")), deployment("titanic-api"), {})
    again = with_secret_hash(asked(secret(password="planted-1")), deployment("titanic-api"), {})
    other = with_secret_hash(asked(secret(password="planted-2")), deployment("titanic-api"), {})
    assert marks(first) == marks(again)
    assert marks(first)["a"] == "b"
    assert marks(first)[f"{CONTENT}titanic-api"] != marks(other)[f"{CONTENT}titanic-api"]
    assert "planted" not in str(first)


def test_a_secret_whose_name_tells_of_its_content_needs_no_mark() -> None:
    wanted = deployment("titanic-api-0123456789")
    assert with_secret_hash(asked(secret()), wanted, {"titanic-api": "titanic-api-0123456789"}) == wanted
    assert with_secret_hash(asked(), deployment("titanic-api"), {}) == deployment("titanic-api")
    assert with_secret_hash(asked(), {"kind": "Service", "spec": {}}, {}) == {"kind": "Service", "spec": {}}


def test_a_mark_tells_secrets_with_the_same_content_apart() -> None:
    other = secret(password="planted") | {"metadata": {"name": "titanic-api", "uid": "another"}}
    assert content_mark(secret(password="planted")) != content_mark(other)


def test_secrets_are_resolved_where_operators_name_them() -> None:
    names = {"login": "login-1"}
    cluster = {
        "bootstrap": {"secret": {"name": "login"}},
        "roles": [{"name": "login", "passwordSecret": {"name": "login"}}],
    }
    assert resolved(cluster, names) == {
        "bootstrap": {"secret": {"name": "login-1"}},
        "roles": [{"name": "login", "passwordSecret": {"name": "login-1"}}],
    }


def test_a_reader_may_call_a_secret_by_another_name() -> None:
    options: dict[str, Any] = {
        "readers": {"login": {"password": "app"}, "nobody": {"password": "none"}},
        "plain": {"login": {"username": "somebody"}, "nobody": {"username": "nobody"}},
        "types": {"login": "kubernetes.io/basic-auth"},
    }
    ((reader, made),) = of_readers(options, {"app": "planted", KEY: "key"})
    assert reader == "login"
    assert made["type"] == "kubernetes.io/basic-auth"
    assert {name: base64.b64decode(value) for name, value in made["data"].items()} == {
        "password": b"planted",
        "username": b"somebody",
    }


def external(generation: int, version: str, status: str = "True") -> dict[str, Any]:
    told = {"type": "Ready", "status": status, "reason": "SecretSyncedError", "message": "no such key"}
    return {
        "kind": "ExternalSecret",
        "metadata": {"name": "titanic-api", "generation": generation},
        "status": {"conditions": [told], "syncedResourceVersion": version},
    }


def test_a_secret_is_synced_when_the_store_has_been_read_for_what_is_asked_now() -> None:
    assert synced(external(2, "2-abc"))
    assert synced(external(2, "2-abc"), before="2-xyz")
    assert not synced(external(2, "2-abc"), before="2-abc"), "the store has not been read since"
    assert not synced(external(2, "1-abc")), "what it was asked for before"
    assert not synced(external(2, "2-abc", "False"))
    assert not synced({"kind": "ExternalSecret", "metadata": {"generation": 1}}), "nobody has looked at it"


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([], "SecretStore titanic is not ready: its operator has not looked at it. Is External Secrets running?"),
        (
            [{"type": "Ready", "status": "False", "reason": "InvalidProviderConfig", "message": "no\ncredentials"}],
            "SecretStore titanic is not ready: InvalidProviderConfig: no credentials",
        ),
    ],
)
def test_what_is_not_synced_is_told_of_by_the_operator_s_words(
    conditions: list[dict[str, str]], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0)
    made = [{"manager": "whitestar.deploy"}]
    there = STORE | {
        "metadata": {"name": "titanic", "uid": "1", "managedFields": made},
        "status": {"conditions": conditions},
    }
    with pytest.raises(ReleaseError) as error:
        ensure_synced(asked(there), [STORE], 0, check=False)
    assert str(error.value) == words


def test_a_cluster_of_cloudnative_pg_is_healthy_when_its_operator_says_so_and_all_servers_are_ready() -> None:
    status: dict[str, Any] = {"phase": "Cluster in healthy state", "readyInstances": 3}
    assert healthy({"spec": {"instances": 3}, "status": status})
    assert not healthy({"spec": {"instances": 3}, "status": status | {"readyInstances": 2}})
    waiting = {"phase": "Setting up primary", "phaseReason": "no storage"}
    assert not healthy({"spec": {"instances": 3}, "status": waiting})
    assert not healthy(None)
    assert said_of({"status": waiting}) == "Setting up primary: no storage"
    assert "Is CloudNativePG running?" in said_of({"status": {}})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"host": "db"}, {"port": 5432, "sslmode": "verify-full", "sslrootcert": SYSTEM_AUTHORITIES}),
        (
            {"host": "db", "port": "6432", "authority": "PEM"},
            {"port": 6432, "sslmode": "verify-full", "sslrootcert": "/run/authority"},
        ),
        ({"host": "db", "sslmode": "require"}, {"port": 5432, "sslmode": "require"}),
    ],
)
def test_a_database_that_others_run_is_verified_unless_somebody_says_otherwise(
    given: dict[str, Any], found: dict[str, Any]
) -> None:
    server = {"provider": "kubernetes", "kind": "external", "tls": False, "tls_directory": "/run", "external": given}
    connection = database_connection({"name": "titanic"}, server | {"directory": "/d"})
    assert connection == {"name": "titanic", "host": "db"} | found
    assert database_environment(connection)["TITANIC_DATABASE_SSLMODE"] == found["sslmode"]
    assert database_address(connection) == f"db:{found['port']}/titanic"


def test_what_the_system_trusts_is_no_file_of_ours() -> None:
    assert database_secret_files({"sslrootcert": SYSTEM_AUTHORITIES, "password_file": "/run/p"}) == {"p": "/run/p"}


@pytest.mark.parametrize(
    ("server", "found"),
    [
        ({"provider": "local", "kind": "pod", "tls": False}, {"host": "/d/run"}),
        ({"provider": "compose", "kind": "pod", "tls": False}, {"host": "database"}),
        (
            {"provider": "kubernetes", "kind": "pod", "tls": True},
            {"host": "titanic-database", "sslmode": "verify-full", "sslrootcert": "/run/authority"},
        ),
        (
            {"provider": "kubernetes", "kind": "cloudnative_pg", "tls": False},
            {"host": "titanic-database-rw", "sslmode": "require"},
        ),
    ],
)
def test_a_database_of_ours_is_where_its_provider_has_it(server: dict[str, Any], found: dict[str, Any]) -> None:
    own = {"directory": "/d", "tls_directory": "/run", "external": {}}
    assert database_connection({}, server | own) == {"port": 5432} | found
