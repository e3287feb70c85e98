# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be a secret is refused by its name alone, and a name tells that a secret changed and nothing more."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import keyed
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import Rotation
from ansible_collections.whitestar.deploy.plugins.modules.kubernetes_secrets import contents


def asked(given: dict[str, Any], *generated: str) -> dict[str, Any]:
    return {"given": given, "generated": generated}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"App": "x"}, "titanic_secrets_values: 'App' is not a name of lower-case letters, digits and _"),
        ({"../etc": "x"}, "titanic_secrets_values: '../etc' is not a name"),
        ({"app": ""}, "titanic_secrets_values: 'app' must be a text that is not empty (quote numbers)"),
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
