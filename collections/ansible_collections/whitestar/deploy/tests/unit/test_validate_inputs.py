# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input is refused by name, with a suggestion, and without showing a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.action.validate_inputs import (
    clashing_tags,
    internal,
    renamed,
    role_options,
    unknown_tags,
    unknown_variables,
)
from ansible_collections.whitestar.deploy.plugins.plugin_utils.certificates import wrong_certificates
from ansible_collections.whitestar.deploy.plugins.plugin_utils.names import FOLLOWING, RENAMED
from ansible_collections.whitestar.deploy.plugins.plugin_utils.option_values import wrong_values
from ansible_collections.whitestar.deploy.plugins.plugin_utils.validation import (
    wrong_address,
    wrong_environment,
    wrong_together,
)
from ansible_collections.whitestar.deploy.tests.helpers import certificate

OPTIONS = role_options()
TAGS = ["image", "database", "api", "rollback"]


def test_what_is_a_role_s_own_is_refused_and_what_an_earlier_play_registered_is_not() -> None:
    registered = {"__titanic_preflight_lock": {"changed": False}, "__titanic_api_front": {"skipped": True}}
    given = {"__titanic_preflight_run": [], "__titanic_verify_actions": {"release": "none"}}
    assert internal({**registered, **given, "titanic_api_port": 80}) == [
        "__titanic_preflight_run: this variable is the collection's own. Leave it out.",
        "__titanic_verify_actions: this variable is the collection's own. Leave it out.",
    ]


def test_an_old_name_is_taken_and_told_its_new_one() -> None:
    assert set(RENAMED.values()) <= set(OPTIONS)
    assert not set(RENAMED) & set(OPTIONS)
    assert unknown_variables(RENAMED, OPTIONS) == []
    told, clashing = renamed({"titanic_target_project": "a"}, {"titanic_project": "a"})
    assert told == ["titanic_target_project: this setting is called titanic_project now. Rename it."]
    assert clashing == []


def test_an_old_name_that_says_something_else_than_the_new_one_is_refused() -> None:
    told, clashing = renamed({"titanic_target_project": "a"}, {"titanic_project": "b"})
    assert told == []
    assert clashing == [
        "titanic_target_project: titanic_project, its new name, has another value. Leave titanic_target_project out."
    ]


def test_what_follows_from_other_settings_is_refused_with_what_to_set() -> None:
    assert unknown_variables(["titanic_rollback_replicas", "titanic_seed_sha256"], OPTIONS) == [
        "titanic_rollback_replicas: this variable follows from other settings. Set titanic_api_replicas instead.",
        "titanic_seed_sha256: this variable follows from other settings. Leave it out.",
    ]
    assert not set(FOLLOWING) & set(OPTIONS)
    assert {name for settings in FOLLOWING.values() for name in settings} <= set(OPTIONS)


def test_every_role_s_options_are_known() -> None:
    assert {"titanic_api_port", "titanic_state_directory", "titanic_rollback_to"} <= set(OPTIONS)
    assert OPTIONS["titanic_api_port"]["type"] == "int"


@pytest.mark.parametrize(
    ("tag", "hint"),
    [
        ("rolback", "Did you mean rollback?"),
        ("databse", "Did you mean database?"),
        ("zzz", "no such tag. The tags are "),
    ],
)
def test_an_unknown_tag_is_refused(tag: str, hint: str) -> None:
    (problem,) = unknown_tags([tag], TAGS)
    assert problem.startswith(f"--tags {tag}: there is no such tag")
    assert hint in problem
    assert "api, database, image, rollback" in problem


def test_known_and_special_tags_pass() -> None:
    assert unknown_tags([*TAGS, "all", "always", "never", "tagged", "untagged"], TAGS) == []


@pytest.mark.parametrize(
    ("run", "skip", "words"),
    [
        (["all"], ["image"], "--skip-tags image: the release is made under this tag too"),
        (["all"], ["schema"], "as with --tags target,secrets,database,seed,api"),
        (["api", "seed"], ["image"], "api would have none to serve"),
        (["rollback", "api"], [], "--tags rollback,api: rollback does not go together with api"),
        (["teardown", "status"], [], "teardown does not go together with status"),
        (["stop", "api"], [], "stop does not go together with api"),
        (["start", "database"], [], "start does not go together with database"),
        (["all", "rollback"], [], "rollback does not go together with all"),
    ],
)
def test_tags_that_cannot_do_what_is_asked_are_refused(run: list[str], skip: list[str], words: str) -> None:
    (problem,) = clashing_tags(run, skip, deploys=True)
    assert words in problem


@pytest.mark.parametrize(
    ("run", "skip", "deploys"),
    [
        (["all"], [], True),
        (["all"], ["seed", "verify"], True),
        (["all"], ["schema", "api"], True),
        (["target", "seed", "api"], [], True),
        (["database"], ["image"], True),
        (["all"], ["image"], False),
        (["rollback", "status"], [], False),
        (["teardown"], [], False),
        (["stop", "status"], [], False),
        (["start", "verify"], [], False),
    ],
)
def test_other_choices_of_tags_pass(run: list[str], skip: list[str], deploys: bool) -> None:
    assert clashing_tags(run, skip, deploys=deploys) == []


def test_only_roles_give_results_back() -> None:
    (problem,) = unknown_variables(["titanic_api_prot_result"], OPTIONS)
    assert problem.startswith("titanic_api_prot_result: there is no such variable.")


def test_a_misspelt_variable_is_refused() -> None:
    (problem,) = unknown_variables(["titanic_api_prot", "titanic_api_port"], OPTIONS)
    assert problem == "titanic_api_prot: there is no such variable. Did you mean titanic_api_port?"


def test_a_variable_like_nothing_gets_no_suggestion() -> None:
    assert unknown_variables(["titanic_zzzzzzzzzzzzzzzzzz"], OPTIONS) == [
        "titanic_zzzzzzzzzzzzzzzzzz: there is no such variable."
    ]


def test_a_setting_that_the_deployment_gives_itself_is_refused() -> None:
    given = {"TITANIC_DRAIN_FILE": "/x", "TITANIC_DATABASE_HOST": "db", "TITANIC_POOL_SIZE": 8, "OTHER_BIND": "1"}
    assert wrong_environment({"titanic_api_environment": given}) == [
        f"titanic_api_environment: {name} is the deployment's own. Leave it out."
        for name in ("TITANIC_DATABASE_HOST", "TITANIC_DRAIN_FILE")
    ]


def test_what_is_not_ours_passes() -> None:
    assert unknown_variables(["ansible_host", "__titanic_x", "titanic_image_result", "other_titanic_x"], OPTIONS) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("titanic_api_port", "many", "titanic_api_port: it must be a whole number, not 'many'"),
        ("titanic_api_port", 0, "0 is not a port. Choose one from 1 to 65535"),
        ("titanic_api_port", 65536, "is not a port"),
        ("titanic_api_port", "-5", "is not a port"),
        ("titanic_api_drain_seconds", -1, "-1 is less than 0"),
        ("titanic_api_workers", 65, "65 is not from 1 to 64"),
        ("titanic_api_replicas", 0, "0 is less than 1"),
        ("titanic_api_probation_error_share", "1.5", "1.5 is not from 0 to 1"),
        ("titanic_api_probation_mean_seconds", "nan", "nan is less than 0"),
        ("titanic_api_ready_seconds", "-0.5", "it must be a whole number, not '-0.5'"),
        ("titanic_seed_reset", "perhaps", "it must be true or false, not 'perhaps'"),
        ("titanic_api_environment", "A=1 B", "it must be a mapping, not 'A=1 B'"),
        ("titanic_seed_csv", "/nowhere/rows.csv", "there is no /nowhere/rows.csv on this machine"),
        ("titanic_image_context", "/nowhere", "there is no /nowhere on this machine"),
        ("titanic_image_dockerfile", "/nowhere", "there is no /nowhere on this machine"),
        ("titanic_image_requirements", "/etc", "/etc is a directory. Name the file."),
        ("titanic_seed_csv", "/etc", "/etc is a directory. Name the file."),
        ("titanic_image_context", "/etc/passwd", "/etc/passwd is no directory. Name the one that holds the project"),
        ("titanic_state_directory", "relative/path", "relative/path is not an absolute path"),
        ("titanic_database_external", {"port": "x"}, "titanic_database_external: port must be a whole number"),
        ("titanic_provider", "docker", "value of titanic_provider must be one of: local, compose, kubernetes"),
    ],
)
def test_a_wrong_value_is_refused(name: str, value: Any, words: str) -> None:
    (problem,) = wrong_values({name: value}, OPTIONS)
    assert problem.startswith(f"{name}: ")
    assert words in problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("titanic_api_port", 1),
        ("titanic_api_port", "65535"),
        ("titanic_api_workers", 2),
        ("titanic_seed_reset", "yes"),
        ("titanic_state_directory", "~/titanic"),
        ("titanic_seed_csv", __file__),
        ("titanic_image_context", str(Path(__file__).parent)),
    ],
)
def test_a_right_value_passes(name: str, value: Any) -> None:
    assert wrong_values({name: value}, OPTIONS) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("titanic_secrets_values", "hunter2-secret"),
        ("titanic_api_write_tokens", {"hunter2-secret": 1}),
        ("titanic_api_write_tokens", [{"a": "hunter2-secret"}]),
    ],
)
def test_a_wrong_secret_is_refused_without_showing_it(name: str, value: Any) -> None:
    problems = wrong_values({name: value}, OPTIONS)
    assert "hunter2-secret" not in "".join(problems)


@pytest.mark.parametrize(
    ("name", "key", "hint"),
    [
        ("titanic_secrets_values", "database_app_pasword", "database_app_password"),
        ("titanic_secrets_tls", "certifcate", "certificate"),
        ("titanic_secrets_database_tls", "Key", "key"),
        ("titanic_engine", "sockett", "socket"),
        ("titanic_cluster", "kubecofnig", "kubeconfig"),
        ("titanic_database_external", "hots", "host"),
        ("titanic_image_registry_login", "user_name", "username"),
        ("titanic_api_gateway", "sectionname", "sectionName"),
        ("titanic_api_kubernetes_overrides", "Deploymnet", "Deployment"),
        ("titanic_database_kubernetes_overrides", "Statefulset", "StatefulSet"),
        ("titanic_target_kubernetes_overrides", "namespace", "Namespace"),
    ],
)
def test_a_misspelt_key_is_refused_without_its_value(name: str, key: str, hint: str) -> None:
    (problem,) = wrong_values({name: {key: "hunter2-secret"}}, OPTIONS)
    assert problem.startswith(f"{name}: there is no key {key}. Did you mean {hint}? The keys are ")
    assert "hunter2-secret" not in problem


def test_a_secret_of_one_s_own_is_named_where_secrets_are() -> None:
    own = {"titanic_secrets_values": {"mail_password": "a"}}
    assert wrong_values(own, OPTIONS)
    assert wrong_values({**own, "titanic_secrets_generated": ["mail_password"]}, OPTIONS) == []


def test_a_path_on_another_machine_is_not_looked_for_on_this_one() -> None:
    assert wrong_values({"titanic_seed_csv": "/nowhere/rows.csv"}, OPTIONS, {"titanic_seed_csv"}) == []


def test_an_entry_of_the_wrong_type_is_told_of_as_one() -> None:
    options = {"titanic_x": {"type": "list", "elements": "int"}}
    assert wrong_values({"titanic_x": [1, "b"]}, options) == ["titanic_x: each entry must be a whole number"]


def test_a_secret_of_the_wrong_type_is_named() -> None:
    assert wrong_values({"titanic_secrets_values": 7}, OPTIONS) == ["titanic_secrets_values: it must be a mapping"]


def given(files: dict[str, str]) -> dict[str, Any]:
    """Settings with these."""
    return {"titanic_api_tls": "given", "titanic_api_hostname": "api.example.org", "titanic_secrets_tls": files}


@pytest.mark.parametrize("name", ["api.example.org", "API.example.org", "*.example.org"])
def test_a_certificate_for_the_name_passes(name: str) -> None:
    assert wrong_certificates(given(certificate("other.example.org", name))) == []


@pytest.mark.parametrize("names", [(), ("example.org",), ("*.api.example.org",), ("*.org",)])
def test_a_certificate_for_another_name_is_refused(names: tuple[str, ...]) -> None:
    (problem,) = wrong_certificates(given(certificate(*names)))
    assert problem.startswith("titanic_api_hostname: the certificate is for ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (certificate("api.example.org", days=-1), "titanic_secrets_tls: certificate was valid until"),
        ({"key": certificate("x")["key"]}, "titanic_secrets_tls: key is not the one of"),
        ({"key": "hunter2-secret"}, "titanic_secrets_tls: key is no private key"),
        ({"key": "-----BEGIN PRIVATE KEY-----"}, "titanic_secrets_tls: key is no private key"),
        ({"certificate": ""}, "titanic_secrets_tls: certificate is no certificate"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_refused(change: dict[str, str], words: str) -> None:
    files = certificate("api.example.org") | change
    (problem,) = wrong_certificates(given(files))
    assert problem.startswith(words)
    assert files["key"] not in problem


def test_a_certificate_that_nobody_uses_is_not_looked_at() -> None:
    assert wrong_certificates(given({}) | {"titanic_api_tls": "none"}) == []


def test_the_database_s_certificate_is_looked_at_like_the_reverse_proxy_s() -> None:
    good = {"titanic_provider": "compose", "titanic_database_tls": True}
    assert wrong_certificates(good | {"titanic_secrets_database_tls": certificate("database")}) == []
    (other,) = wrong_certificates(good | {"titanic_secrets_database_tls": certificate("db.example.org")})
    assert other == (
        "titanic_secrets_database_tls: the certificate is for db.example.org, not for database. Give one that is."
    )
    (missing,) = wrong_certificates(good)
    assert missing.startswith("titanic_secrets_database_tls: certificate is no certificate")
    (useless,) = wrong_certificates(good | {"titanic_provider": "local"})
    assert useless.startswith("titanic_database_tls: the local database is reached by a socket")
    assert wrong_certificates(good | {"titanic_database_tls": False}) == []


def test_pgadmin_is_refused_where_there_are_no_containers() -> None:
    asked = {"titanic_database_pgadmin": "yes"}
    assert wrong_together(asked | {"titanic_provider": "compose"}) == []
    (useless,) = wrong_together(asked | {"titanic_provider": "local"})
    assert useless.startswith("titanic_database_pgadmin: pgAdmin is a container beside those of a Compose target")
    assert wrong_together({"titanic_provider": "local"}) == []


def test_what_would_be_sent_on_to_nowhere_or_to_itself_is_refused() -> None:
    asked = {"titanic_provider": "local", "titanic_api_tls": "internal", "titanic_api_redirect_port": 5000}
    assert wrong_together(asked | {"titanic_api_port": 443}) == []
    assert wrong_together(asked) == [
        "titanic_api_redirect_port: 5000 is titanic_api_port. Choose another port, such as 80."
    ]
    (useless,) = wrong_together({"titanic_provider": "compose", "titanic_api_redirect_port": 80})
    assert useless.startswith("titanic_api_redirect_port: there is no HTTPS to send to")


ON_KUBERNETES = {"titanic_provider": "kubernetes", "titanic_image_repository": "registry.example.org/titanic"}


def test_what_a_cluster_can_use_passes() -> None:
    assert wrong_together(ON_KUBERNETES) == []
    good = {"titanic_project": "titanic-2", "titanic_api_tls": "acme", "titanic_database_pgadmin": "no"}
    assert wrong_together(ON_KUBERNETES | good) == []
    assert wrong_together(ON_KUBERNETES | {"titanic_project": "7" * 63}) == []


@pytest.mark.parametrize(
    "address",
    [
        "",
        "300.1.1.1",
        "1.2.3",
        "::zz",
        "[::1",
        "[127.0.0.1]",
        "http://localhost",
        "localhost:80",
        "::1:5000:",
        "a b",
        "-a",
    ],
)
@pytest.mark.parametrize("provider", ["local", "compose", "kubernetes"])
def test_what_is_no_address_is_refused(address: str, provider: str) -> None:
    (problem,) = wrong_address({"titanic_provider": provider, "titanic_api_address": address})
    assert problem == (
        f"titanic_api_address: '{address}' is no address. Give one without scheme and port, "
        "such as 127.0.0.1, ::1 or 0.0.0.0."
    )


def test_an_address_of_a_zone_and_a_name_that_docker_does_not_take_are_refused() -> None:
    (problem,) = wrong_address({"titanic_provider": "local", "titanic_api_address": "fe80::1%eth0"})
    assert problem.startswith("titanic_api_address: 'fe80::1%eth0' has a zone. Give an address without one")
    (problem,) = wrong_address({"titanic_provider": "compose", "titanic_api_address": "front.example"})
    assert problem.startswith("titanic_api_address: front.example is a name, and Docker publishes a port at an address")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "[::1]", "::", "[2001:db8::1]", "localhost"])
@pytest.mark.parametrize("provider", ["local", "compose", "kubernetes"])
def test_any_kind_of_address_passes(address: str, provider: str) -> None:
    assert wrong_address({"titanic_provider": provider, "titanic_api_address": address}) == []
    assert wrong_address({"titanic_provider": "kubernetes", "titanic_api_address": "titanic.example.org"}) == []


@pytest.mark.parametrize("name", ["Hunt-Big", "_titanic", "-titanic", "a.b", "a b", ""])
def test_a_name_that_no_compose_project_can_have_is_refused(name: str) -> None:
    named = {"titanic_provider": "compose", "titanic_project": name}
    (problem,) = wrong_together(named)
    assert problem.startswith(f"titanic_project: '{name}' cannot be a Compose project. Use lower-case letters")


@pytest.mark.parametrize("name", ["titanic", "5700", 5700, "titanic_2-b"])
def test_a_name_that_a_compose_project_can_have_passes(name: Any) -> None:
    assert wrong_together({"titanic_provider": "compose", "titanic_project": name}) == []


@pytest.mark.parametrize("name", ["Titanic", "titanic_2", "-titanic", "titanic-", "t" * 64, "", "a.b", "titanic\n"])
def test_a_name_that_no_namespace_can_have_is_refused(name: str) -> None:
    (problem,) = wrong_together(ON_KUBERNETES | {"titanic_project": name})
    assert problem.startswith(f"titanic_project: '{name}' cannot be a namespace. Use lower-case letters")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("titanic_image_repository", "titanic", "the image has to be pushed. Name a repository of a registry"),
        ("titanic_api_tls", "internal", "internal is Caddy's. Use acme"),
        ("titanic_database_pgadmin", True, "pgAdmin is a container beside those of a Compose target"),
    ],
)
def test_what_a_cluster_has_no_use_for_is_refused(name: str, value: Any, words: str) -> None:
    (problem,) = wrong_together(ON_KUBERNETES | {name: value})
    assert problem.startswith(f"{name}: {words}")


AUTHORITY = certificate("An authority")["certificate"]
PASSWORDS = {"database_owner_password": "planted-owner", "database_app_password": "planted-app"}
EXTERNAL = ON_KUBERNETES | {
    "titanic_database_kind": "external",
    "titanic_database_external": {"host": "db.example.org", "authority": AUTHORITY},
    "titanic_secrets_values": PASSWORDS,
}
STORED = ON_KUBERNETES | {
    "titanic_secrets_source": "external_secrets",
    "titanic_secrets_store": {"aws": {"service": "SecretsManager", "region": "eu-central-1"}},
}


@pytest.mark.parametrize(
    "values",
    [
        EXTERNAL,
        EXTERNAL | {"titanic_database_external": {"host": "10.0.0.7", "port": "6432", "sslmode": "require"}},
        EXTERNAL | STORED | {"titanic_secrets_values": {}},
        STORED,
        STORED
        | {"titanic_secrets_remote": {"write_tokens": "a", "database_app_password": {"key": "b", "property": "c"}}},
        ON_KUBERNETES | {"titanic_database_kind": "cloudnative_pg", "titanic_database_instances": 1},
    ],
)
def test_a_choice_that_is_complete_passes(values: dict[str, Any]) -> None:
    assert wrong_together(values) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (EXTERNAL | {"titanic_database_external": {}}, "titanic_database_external: host is missing"),
        (
            EXTERNAL | {"titanic_database_external": {"host": "postgres://db"}},
            "titanic_database_external: host 'postgres://db' is not a name",
        ),
        (
            EXTERNAL | {"titanic_database_external": {"host": "db", "port": 70000}},
            "titanic_database_external: port 70000 is not a port",
        ),
        (
            EXTERNAL | {"titanic_database_external": {"host": "db", "authority": "/etc/ca.pem"}},
            "titanic_database_external: authority is no certificate. Give it as PEM",
        ),
        (
            EXTERNAL | {"titanic_database_external": {"host": "db", "sslmode": "verify-ca"}},
            "titanic_database_external: sslmode verify-ca needs authority",
        ),
        (
            EXTERNAL | {"titanic_secrets_values": {"database_app_password": "planted-app"}},
            "titanic_secrets_values: database_owner_password is missing. Give what the external database has",
        ),
        (EXTERNAL | {"titanic_database_settings": {"work_mem": "8MB"}}, "titanic_database_settings: others run"),
        (
            ON_KUBERNETES | {"titanic_database_external": {"host": "db"}},
            "titanic_database_external: titanic_database_kind is pod. Set that to external",
        ),
        (
            ON_KUBERNETES | {"titanic_database_kind": "cloudnative_pg", "titanic_database_instances": 0},
            "titanic_database_instances: there has to be one",
        ),
        (
            ON_KUBERNETES | {"titanic_database_kind": "cloudnative_pg", "titanic_database_tls": "yes"},
            "titanic_database_tls: it is for titanic_database_kind pod",
        ),
        (STORED | {"titanic_secrets_store": {}}, "titanic_secrets_store: there has to be one provider"),
        (
            STORED | {"titanic_secrets_store": {"aws": {}, "vault": {}}},
            "titanic_secrets_store: there has to be one provider",
        ),
        (
            STORED | {"titanic_secrets_store": {"aws": "eu-central-1"}},
            "titanic_secrets_store: there has to be one provider",
        ),
        (
            STORED | {"titanic_secrets_remote": {"database_password": "x"}},
            "titanic_secrets_remote: there is no secret database_password. The secrets are database_owner_password",
        ),
        (
            STORED | {"titanic_secrets_remote": {"write_tokens": {"property": "x"}}},
            "titanic_secrets_remote: write_tokens is neither a remote key nor a mapping with key",
        ),
        (
            STORED | {"titanic_secrets_values": PASSWORDS},
            "titanic_secrets_values: secrets come from titanic_secrets_store",
        ),
        (STORED | {"titanic_api_write_tokens": ["planted"]}, "titanic_api_write_tokens: secrets come from"),
        (STORED | {"titanic_database_tls": True}, "titanic_database_tls: its key would have to come from"),
        (ON_KUBERNETES | {"titanic_secrets_store": {"aws": {}}}, "titanic_secrets_store: secrets come from no store"),
        (ON_KUBERNETES | {"titanic_secrets_remote": {"x": "y"}}, "titanic_secrets_remote: secrets come from no store"),
        (
            {"titanic_provider": "compose", "titanic_database_kind": "external"},
            "titanic_database_kind: external is for",
        ),
        (
            ON_KUBERNETES | {"titanic_api_front": "gateway", "titanic_api_tls": "given"},
            "titanic_api_tls: only an Ingress gets a certificate (titanic_api_front)",
        ),
        (
            ON_KUBERNETES | {"titanic_api_front": "node_port"},
            "titanic_target_client_networks: nobody may reach a node_port",
        ),
        (
            {"titanic_provider": "local", "titanic_secrets_source": "external_secrets"},
            "titanic_secrets_source: external_secrets is for Kubernetes",
        ),
    ],
)
def test_a_choice_that_another_one_rules_out_is_refused_by_name(values: dict[str, Any], words: str) -> None:
    (problem,) = wrong_together(values)
    assert problem.startswith(words)
    assert "planted" not in problem


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("titanic_database_kind", "rds", "must be one of: pod, cloudnative_pg, external"),
        ("titanic_database_external", {"host": "db", "sslmode": "prefer"}, "must be one of: require, verify-ca"),
        ("titanic_database_external", {"hots": "db"}, "hots"),
        ("titanic_secrets_source", "vault", "must be one of: generated, external_secrets"),
        ("titanic_database_instances", "three", "it must be a whole number, not 'three'"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(name: str, value: Any, words: str) -> None:
    (problem,) = wrong_values({name: value}, OPTIONS)
    assert problem.startswith(f"{name}: ")
    assert words in problem


def test_the_database_s_certificate_has_the_name_that_it_has_on_a_cluster() -> None:
    asked = ON_KUBERNETES | {"titanic_database_tls": True}
    assert wrong_certificates(asked | {"titanic_secrets_database_tls": certificate("titanic-database")}) == []
    (other,) = wrong_certificates(asked | {"titanic_secrets_database_tls": certificate("database")})
    assert other.endswith("the certificate is for database, not for titanic-database. Give one that is.")


def test_an_image_that_is_not_pushed_is_refused_for_a_cluster() -> None:
    (problem,) = wrong_together({"titanic_provider": "kubernetes"})
    assert problem.startswith("titanic_image_repository: ")


@pytest.mark.parametrize("push", [False, "no", None])
@pytest.mark.parametrize("platforms", [["linux/amd64", "linux/arm64"], "linux/amd64,linux/arm64"])
def test_several_platforms_need_a_registry(platforms: Any, push: Any) -> None:
    values = {"titanic_image_platforms": platforms} | ({} if push is None else {"titanic_image_push": push})
    (problem,) = wrong_together(values)
    assert problem.startswith("titanic_image_platforms: only a registry keeps an image for several platforms. Set ")
    assert wrong_together(values | {"titanic_image_push": "yes"}) == []
    assert wrong_together({"titanic_image_platforms": ["linux/amd64"]}) == []


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ({"key": "a.pub"}, ""),
        ({"identity": "a", "issuer": "b", "ref": "refs/heads/main"}, ""),
        ({"ref": "refs/heads/main"}, "who must have signed"),
        ({"key": "a.pub", "identity": "a", "issuer": "b"}, "who must have signed"),
        ({"identity": "a"}, "Set both identity and issuer"),
    ],
)
def test_a_signature_is_somebodys(wanted: dict[str, str], problem: str) -> None:
    values = {"titanic_image_verify": wanted, "titanic_provider": "compose", "titanic_image_push": True}
    found = wrong_together(values)
    assert [problem in text for text in found] == [True] * bool(problem)
    assert wrong_together(values | {"titanic_image_push": False})[-1].endswith(
        "keeps signatures. Set titanic_image_push."
    )


def test_a_login_without_its_password_is_named_and_one_with_it_is_not_shown() -> None:
    login = {"username": "alice", "pasword": "planted-registry"}
    (problem,) = wrong_values({"titanic_image_registry_login": login}, OPTIONS)
    assert problem.startswith("titanic_image_registry_login: ")
    assert "password" in problem
    assert "planted-registry" not in problem
