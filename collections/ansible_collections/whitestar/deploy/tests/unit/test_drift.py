# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Differences are found by path, told in one line each, without secrets; managed fields say whose a field is."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import (
    SHOWN,
    Difference,
    Item,
    compared,
    in_words,
    shown,
    value_at,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.managed_fields import (
    beside,
    others,
    own,
    owner,
    shared,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.drift import NOT_SHOWN, summary, told


@pytest.mark.parametrize(
    ("applied", "live", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, [("a.b", 1, 2)]),
        ({"a": 1}, {}, [("a", 1, None)]),
        ({}, {"x.y/z": 1}, [('["x.y/z"]', None, 1)]),
        (
            {"a": [{"name": "n", "v": 1}, {"name": "m"}]},
            {"a": [{"name": "m"}, {"name": "n", "v": 2}]},
            [("a[n].v", 1, 2)],
        ),
        ({"a": [{"name": "n"}]}, {"a": [{"name": "n"}, {"name": "o"}]}, [("a[o]", None, {"name": "o"})]),
        ({"a": [{"p": 1}]}, {"a": [{"p": 2}]}, [("a[0].p", 1, 2)]),
        ({"a": [1, 2]}, {"a": [1]}, [("a", [1, 2], [1])]),
        ({"a": [{"name": "n"}, {"name": "n"}]}, {"a": []}, [("a", [{"name": "n"}, {"name": "n"}], [])]),
    ],
)
def test_differences_have_paths(applied: Any, live: Any, expected: list[tuple[str, Any, Any]]) -> None:
    assert [(in_words(path), left, right) for path, left, right in compared(applied, live)] == expected


def test_a_value_is_found_by_its_path() -> None:
    thing = {"a": [{"name": "n", "v": 1}]}
    assert value_at(thing, ("a", Item("n", None), "v")) == 1
    assert value_at(thing, ("a", Item("o", None), "v")) is None
    assert value_at({"a": 1}, ("a", "b")) is None


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (Difference("X y", "a.b", 1, 2, by="bob", at="then"), "X y: a.b: 1 was applied, is 2 (by bob at then)"),
        (Difference("X y", "a", live="v", by="bob"), 'X y: a: added: "v" (by bob)'),
        (Difference("X y", "a", applied=[1], at="then"), "X y: a: removed, was [1] (at then)"),
        (Difference("X y", said="is gone"), "X y: is gone"),
    ],
)
def test_a_difference_is_one_line(difference: Difference, text: str) -> None:
    assert str(difference) == text


def test_long_values_are_cut() -> None:
    assert len(shown("x" * 999)) == SHOWN + 1


def test_no_secret_is_told(state: State) -> None:
    """Neither one of the target, nor what has the name of one."""
    (state.root / "secrets").mkdir()
    (state.root / "secrets" / "token").write_text("planted-in-a-file")
    env = [
        {"name": "API_KEY", "value": "planted-in-a-variable"},
        {"name": "KEY_FILE", "value": "/run/key"},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    found = [
        Difference("X y", "data.text", "a", "has planted-in-a-file in it"),
        Difference("X y", "env", live=env),
        Difference("X y", "data.password", "planted-before", "planted-after"),
        Difference("X y", 'data["access-token"]', applied="planted-there"),
        Difference("X y", "automountServiceAccountToken", False, True),
    ]
    things = told(state, found)
    assert "planted" not in str(things)
    assert things[0]["live"] == "has [token] in it"
    assert [entry.get("value") for entry in things[1]["live"]] == [NOT_SHOWN, "/run/key", None]
    assert things[2]["text"] == f'X y: data.password: "{NOT_SHOWN}" was applied, is "{NOT_SHOWN}"'
    assert things[4]["live"] is True


def test_a_summary_says_what_was_not_compared() -> None:
    assert summary([], ["x: y"]) == ["no drift: all is as it was applied", "not compared: x: y"]
    assert summary([{"text": "a"}], []) == ["1 difference from what was applied:", "- a"]
    assert summary([{"text": "a"}, {"text": "b"}], [])[0] == "2 differences from what was applied:"


def entry(manager: str, tree: dict[str, Any], at: str = "2026", **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": "Update", "time": at, "fieldsV1": tree, **more}


CONTAINER = 'k:{"name":"api"}'
PORT = 'k:{"port":80,"protocol":"TCP"}'
LIVE = {
    "metadata": {
        "managedFields": [
            entry("whitestar.deploy", {"f:spec": {"f:a": {}, "f:list": {CONTAINER: {".": {}, "f:image": {}}}}}),
            entry("whitestar.deploy", {"f:spec": {"f:b": {}}}),
            entry("early", {"f:spec": {"f:c": {}}}, "2025"),
            entry("late", {"f:spec": {"f:c": {}, "f:list": {CONTAINER: {"f:env": {}}}, "f:ports": {PORT: {".": {}}}}}),
            entry("controller", {"f:spec": {"f:a": {}}}, subresource="status"),
        ]
    },
    "spec": {"a": 1, "b": 2, "c": 3, "list": [{"name": "api", "image": "i", "env": []}], "ports": [{"port": 80}]},
}
API = Item("api", {"name": "api"})


@pytest.mark.parametrize(
    ("path", "manager"),
    [
        (("spec", "a"), "whitestar.deploy"),
        (("spec", "a", "below"), "whitestar.deploy"),
        (("spec", "c"), "late"),
        (("spec", "list", API, "image"), "whitestar.deploy"),
        (("spec", "list", API, "env"), "late"),
        (("spec", "ports", Item("0", {"port": 80})), "late"),
        (("spec", "ports", Item("0", {"port": 81})), None),
        (("spec", "gone"), None),
    ],
)
def test_a_field_has_an_owner(path: Any, manager: str | None) -> None:
    assert (owner(LIVE, path) or {}).get("manager") == manager


def test_fields_of_others_are_told_by_their_tops() -> None:
    (late, early) = others(LIVE)
    assert (late["manager"], early["manager"]) == ("late", "early")
    found = [(in_words(path), value) for path, value in beside(late["fieldsV1"], own(LIVE), LIVE)]
    assert found == [("spec.c", 3), ("spec.list[api].env", []), ("spec.ports", [{"port": 80}])]


def test_what_is_added_to_an_empty_map_of_ours_is_told() -> None:
    theirs: dict[str, Any] = {"f:data": {".": {}, "f:x": {}}, "f:metadata": {"f:labels": {}}, "f:status": {}}
    found = list(beside(theirs, {"f:data": {}}, {"data": {"x": "1"}}))
    assert [(in_words(path), value) for path, value in found] == [("data.x", "1")]


def test_fields_that_two_have_are_told() -> None:
    mine = {"f:spec": {"f:a": {}, "f:b": {}, "f:set": {'v:"x"': {}}}, "f:metadata": {"f:labels": {}}}
    theirs = {"f:spec": {"f:b": {}, "f:c": {}, "f:set": {'v:"x"': {}}}, "f:metadata": {"f:labels": {}}}
    found = shared(theirs, mine, {"spec": {"set": ["x"]}})
    assert [in_words(path) for path in found] == ["spec.b", "spec.set[x]"]
