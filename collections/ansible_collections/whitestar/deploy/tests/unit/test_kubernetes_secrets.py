# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be a secret is refused by its name alone, and a name tells that a secret changed and nothing more."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import (
    encoded,
    keyed,
    rotation_in,
    with_current_secrets,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import Rotation
from ansible_collections.whitestar.deploy.plugins.modules.kubernetes_secrets import begin, contents, start_alone


def asked(given: dict[str, Any], *generated: str) -> dict[str, Any]:
    return {"given": given, "generated": generated}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"App": "x"}, "titanic_secrets_values: 'App' is no name of a secret. Use lower-case letters, digits and _."),
        ({"../etc": "x"}, "titanic_secrets_values: '../etc' is no name of a secret"),
        ({"app": ""}, "titanic_secrets_values: 'app' must be a text that is not empty. Quote numbers."),
        ({"app": 71234567}, "titanic_secrets_values: 'app' must be a text"),
        ({"app": {"a": "planted-within"}}, "titanic_secrets_values: 'app' must be a text"),
    ],
)
def test_what_cannot_be_a_secret_is_refused_by_its_name_alone(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="titanic_secrets_values") as caught:
        contents({}, asked(given), Rotation())
    assert str(caught.value).startswith(words)
    assert "planted" not in str(caught.value)
    assert "71234567" not in str(caught.value)


def test_generated_ones_stay_and_given_ones_go_before() -> None:
    first = contents({}, asked({}, "a", "b"), Rotation())
    assert contents(first, asked({}, "a", "b"), Rotation()) == first
    assert contents(first, asked({"a": "given"}, "a", "b"), Rotation()) == first | {"a": "given"}
    assert len({*first.values()}) == 3
    assert contents({}, asked({}, "a"), Rotation())["a"] != first["a"]


def test_a_name_tells_that_a_secret_changed_and_nothing_about_it() -> None:
    name = keyed("key", {"a": "1", "b": "2"})
    assert re.fullmatch("[0-9a-f]{10}", name)
    assert keyed("key", {"b": "2", "a": "1"}) == name
    others = [
        keyed("other key", {"a": "1", "b": "2"}),
        keyed("key", {"a": "2", "b": "2"}),
        keyed("key", {"a": "1"}),
        keyed("key", {"a": "1b 1 2"}),
        keyed("key", {"a": "12", "b": ""}),
    ]
    assert len({name, *others}) == 6


KEPT = {"database_app_password": "a", "write_tokens": "t", "tls.crt": "c", "tls.key": "k", ".name-key": "n"}


@pytest.mark.parametrize(
    ("rotate", "given", "words"),
    [
        (
            ["database"],
            {"database_app_password": "a"},
            "titanic_secrets_values: database_app_password is the one in use",
        ),
        (["tokens"], {"write_tokens": "t"}, "titanic_api_write_tokens: these are the ones in use"),
        (["tls"], {"tls.crt": "c", "tls.key": "k"}, "titanic_secrets_tls: these certificates are the ones in use"),
    ],
)
def test_what_is_given_as_it_is_is_no_rotation(rotate: list[str], given: dict[str, str], words: str) -> None:
    options = asked(given) | {"rotate": rotate, "by": "alice"}
    with pytest.raises(ValueError, match=words):
        begin(KEPT, options, Rotation())
    again = begin(KEPT, options, Rotation(unfinished={rotate[0]: "since then, by alice"}))
    assert again == (Rotation(unfinished={rotate[0]: "since then, by alice"}), []), "one that was begun goes on"


def test_a_rotation_is_recorded_beside_what_it_changes() -> None:
    options = asked({"write_tokens": "u"}, "database_app_password") | {"overlap_seconds": 60}
    rotation, renewed = begin(KEPT, options | {"rotate": ["database", "tokens"], "by": "alice"}, Rotation())
    found = contents(KEPT, options, rotation, renewed)
    assert found["database_app_password"] != "a"
    assert re.fullmatch(r"u\nt until 20.+Z", found["write_tokens"])
    assert rotation_in({"data": encoded(found)}) == rotation
    assert (rotation.login, rotation.wanted) == ("", "_a")
    assert contents(found, options, rotation) == found
    store = {"data": encoded({".rotation": "no"})}
    with pytest.raises(ValueError, match=r"Secret titanic-secrets: \.rotation is not readable"):
        rotation_in(store)


class Known:
    """A cluster of these Secrets."""

    def __init__(self, **secrets: dict[str, str]) -> None:
        self.secrets = {name.replace("_", "-"): {"metadata": {}, "data": encoded(own)} for name, own in secrets.items()}

    def get(self, _version: str, _kind: str, name: str) -> dict[str, Any] | None:
        return self.secrets.get(name)


def test_a_release_signs_in_as_the_login_that_its_secret_has_the_password_of() -> None:
    settings = {"kind": "ConfigMap", "data": {"TITANIC_DATABASE_USER": "app", "TITANIC_WORKERS": "2"}}
    first = {"name": "api", "env": [{"name": "TITANIC_DATABASE_USER", "value": "app"}, {"name": "X", "value": "1"}]}
    deployment = {"kind": "Deployment", "spec": {"template": {"spec": {"containers": [first, {"name": "side"}]}}}}
    cluster: Any = Known(titanic_secrets={".rotation": '{"login": "_a", "wanted": "_b"}'})
    made, names = with_current_secrets(cluster, [settings, deployment])
    assert (made[0], names) == (settings, {})
    containers = made[1]["spec"]["template"]["spec"]["containers"]
    assert containers[0]["env"] == [{"name": "X", "value": "1"}, {"name": "TITANIC_DATABASE_USER", "value": "app_b"}]
    assert containers[1] == {"name": "side"}
    nothing: Any = Known()
    assert with_current_secrets(nothing, [settings, deployment])[0] == [settings, deployment]


def test_what_only_a_first_start_needs_starts_nobody_anew() -> None:
    cluster: Any = Known(titanic_database_1={"database_superuser_password": "old", "key": "k"})
    wanted = {"data": encoded({"database_superuser_password": "new", "key": "k"})}
    initial = ["database_superuser_password"]
    assert start_alone(cluster, "titanic-database-1", wanted, initial)
    assert not start_alone(cluster, "titanic-database-1", {"data": encoded({"key": "other"})}, initial)
    assert not start_alone(cluster, "titanic-database-1", wanted, [])
    assert not start_alone(cluster, "titanic-database-2", wanted, initial)
