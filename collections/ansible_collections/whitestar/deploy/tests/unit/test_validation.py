# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choices of a Kubernetes target that do not go together are named, and those that do are let pass."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.plugin_utils.validation import (
    asked_of_a_cluster,
    wrong_choices,
    wrong_elsewhere,
    wrong_rotation,
    wrong_together,
)

GIVEN = {"titanic_secrets_values": {"database_owner_password": "one", "database_app_password": "other"}}
EXTERNAL = {"titanic_database_kind": "external", "titanic_database_external": {"host": "db.example.org"}, **GIVEN}
STORE = {"titanic_secrets_source": "external_secrets", "titanic_secrets_store": {"aws": {"service": "SecretsManager"}}}


@pytest.mark.parametrize("values", [{}, EXTERNAL, STORE, {"titanic_database_kind": "cloudnative_pg"}])
def test_what_goes_together_is_let_pass(values: dict[str, Any]) -> None:
    assert wrong_choices(values) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"titanic_database_kind": "external", **GIVEN}, "titanic_database_external: host is missing"),
        (EXTERNAL | {"titanic_database_external": {"host": "a b"}}, "is not a name or an address"),
        (EXTERNAL | {"titanic_database_external": {"host": "a", "port": 0}}, "port 0 is not a port"),
        (
            EXTERNAL | {"titanic_database_external": {"host": "a", "authority": "x"}},
            "is no certificate. Give it as PEM",
        ),
        (EXTERNAL | {"titanic_database_external": {"host": "a", "sslmode": "verify-ca"}}, "verify-ca needs authority"),
        (EXTERNAL | {"titanic_secrets_values": {}}, "database_owner_password is missing"),
        ({"titanic_database_external": {"host": "a"}}, "titanic_database_kind is pod"),
        ({"titanic_database_kind": "cloudnative_pg", "titanic_database_tls": True}, "titanic_database_tls: it is for"),
        ({"titanic_database_storage": "2GB"}, "titanic_database_storage: '2GB' is no quantity. Write it as 10Gi"),
        ({"titanic_secrets_store": {"aws": {}}}, "titanic_secrets_store: secrets come from no store"),
        (STORE | {"titanic_secrets_store": {}}, "titanic_secrets_store: there has to be one provider"),
        (STORE | {"titanic_secrets_remote": {"nobody": "x"}}, "there is no secret nobody"),
        (STORE | {"titanic_api_write_tokens": ["x"]}, "titanic_api_write_tokens: secrets come from"),
    ],
)
def test_what_does_not_is_named(values: dict[str, Any], words: str) -> None:
    assert any(words in found for found in wrong_choices(values)), wrong_choices(values)


@pytest.mark.parametrize("provider", ["compose", "kubernetes"])
def test_an_engine_that_is_asked_over_the_network_is_refused(provider: str) -> None:
    values = {"titanic_provider": provider, "titanic_image_repository": "registry.example.org/titanic"}
    over = values | {"titanic_engine": {"socket": "tcp://192.0.2.1:2375", "program": "docker"}}
    (found,) = wrong_together(over)
    assert found.startswith("titanic_engine: tcp://192.0.2.1:2375 is no path of a socket")
    assert wrong_together(values | {"titanic_engine": {"socket": "/run/docker.sock", "program": "docker"}}) == []


def test_a_host_has_none_of_these_choices() -> None:
    assert wrong_elsewhere({"titanic_database_kind": "pod"}) == []
    (found,) = wrong_elsewhere({"titanic_database_kind": "external"})
    assert "is for Kubernetes" in found


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({}, ["StorageClass", "IngressClass", "PodMetrics"]),
        ({"titanic_api_max_replicas": 2, "titanic_api_replicas": "2"}, ["StorageClass", "IngressClass"]),
        ({"titanic_api_front": "gateway"}, ["StorageClass", "HTTPRoute", "PodMetrics"]),
        ({"titanic_api_front": "none", "titanic_api_tls": "acme"}, ["StorageClass", "ClusterIssuer", "PodMetrics"]),
        ({"titanic_database_kind": "cloudnative_pg"}, ["StorageClass", "IngressClass", "Cluster", "PodMetrics"]),
        (EXTERNAL, ["IngressClass", "PodMetrics"]),
        (STORE, ["StorageClass", "IngressClass", "SecretStore", "ExternalSecret", "PodMetrics"]),
    ],
)
def test_a_cluster_is_asked_for_what_the_settings_need(values: dict[str, Any], kinds: list[str]) -> None:
    assert [need["kind"] for need in asked_of_a_cluster(values)["required_resources"]] == kinds


def test_a_class_or_issuer_that_is_named_is_asked_for_by_name() -> None:
    named = {"titanic_database_storage_class": "fast", "titanic_api_ingress_class": "nginx", "titanic_api_tls": "acme"}
    needs = asked_of_a_cluster(named)["required_resources"]
    assert {need["variable"]: need.get("name") for need in needs} == {
        "titanic_database_storage_class": "fast",
        "titanic_api_ingress_class": "nginx",
        "titanic_api_issuer": "letsencrypt",
        "titanic_api_max_replicas": None,
    }


def test_what_is_laid_over_objects_and_the_volume_are_looked_at() -> None:
    port = {"titanic_api_front": "node_port", "titanic_api_node_port": "30500"}
    asked = asked_of_a_cluster(port | {"titanic_database_kubernetes_overrides": {"Service": {}}})
    assert [(overlay["variable"], overlay["stage"]) for overlay in asked["overlays"]] == [
        ("titanic_database_kubernetes_overrides", "database"),
        ("titanic_api_node_port", "api"),
    ]
    assert asked["overlays"][1]["over"]["Service"]["spec"]["ports"] == [{"name": "http", "nodePort": 30500}]
    assert asked["volume"] == {"size": "1Gi", "storage_class": ""}
    assert not asked["adopt"]
    other = asked_of_a_cluster(EXTERNAL | {"titanic_target_namespace_adopt": "yes", "titanic_api_node_port": 30500})
    assert (other["volume"], other["overlays"], other["adopt"]) == ({}, [], True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "titanic_rotate: no secret is named. Name some of database, superuser, tokens, tls, backup_key."),
        ({"titanic_rotate": "[database,superuser]"}, ""),
        ({"titanic_rotate": ["database"], "titanic_provider": "compose"}, ""),
        (
            {"titanic_rotate": ["tokens"], "titanic_provider": "kubernetes"},
            "titanic_rotate: secrets are rotated on titanic_provider local and compose only, not yet on kubernetes.",
        ),
        ({"titanic_rotate": "tls"}, "titanic_rotate: tls: it would drop connections yet"),
        ({"titanic_rotate": ["databse"]}, "titanic_rotate: databse: there is no such secret. Did you mean database?"),
        ({"titanic_rotate": ["database"], "titanic_database_kind": "external"}, "titanic_rotate: database: others run"),
        (
            {"titanic_rotate": ["superuser"], "titanic_database_kind": "external"},
            "titanic_rotate: superuser: others run",
        ),
        (
            {"titanic_rotate": ["superuser"], "titanic_database_kind": "cloudnative_pg"},
            "titanic_rotate: superuser: its operator keeps",
        ),
        (
            {"titanic_rotate": ["database"], "titanic_database_kind": "cloudnative_pg"},
            "titanic_rotate: database: its op",
        ),
        ({"titanic_rotate": ["tokens"]}, "titanic_rotate: tokens: there are none, so that anyone may write"),
        ({"titanic_rotate": ["tokens"], "titanic_api_write_tokens": ["new"]}, ""),
        (
            STORE | {"titanic_rotate": ["superuser"]},
            "titanic_rotate: secrets come from a store (titanic_secrets_source).",
        ),
        ({"titanic_rotate": ["tls"]}, "titanic_rotate: tls: it would drop connections yet"),
        ({"titanic_rotate": ["tls"], "titanic_api_tls": "given"}, "titanic_rotate: tls: it would drop connections yet"),
        ({"titanic_rotate": ["database"], "titanic_database_user": "u" * 61}, ""),
        ({"titanic_rotate": ["database"], "titanic_database_user": "u" * 62}, "titanic_rotate: database: its logins"),
        (
            {"titanic_rotate": ["database"], "titanic_database_user": "app", "titanic_database_owner": "app_b"},
            "titanic_rotate: database: titanic_database_owner is named as a login of the service is",
        ),
        ({"titanic_rotate": ["backup_key"]}, "titanic_rotate: backup_key: one key is kept"),
    ],
)
def test_a_secret_that_is_not_there_is_not_rotated(values: dict[str, Any], words: str) -> None:
    found = wrong_rotation(values)
    assert len(found) == bool(words)
    assert "".join(found).startswith(words)
