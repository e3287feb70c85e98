# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A listener is told of each event in the shape that it takes, and of no secret."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.whitestar.deploy.plugins.callback.notify import run_name
from ansible_collections.whitestar.deploy.plugins.plugin_utils import notification
from ansible_collections.whitestar.deploy.plugins.plugin_utils.notification import EVENTS, TEMPLATES, Notification, send

FAILED = Notification(
    "failure",
    "prod",
    "deployment",
    "alice@desk",
    "r7-0123",
    "https://titanic.example.org",
    "Api: no room",
    "https://ci/1",
)
TEXT = "prod: deployment of r7-0123 FAILED by alice@desk\nApi: no room\nhttps://titanic.example.org\nhttps://ci/1"


def test_each_event_has_a_line() -> None:
    assert FAILED.text() == TEXT
    lines = {replace(FAILED, event=event).text().splitlines()[0] for event in EVENTS}
    assert len(lines) == len(EVENTS)
    assert Notification("start", "prod", "teardown", "alice@desk").text() == "prod: teardown started by alice@desk"
    assert replace(FAILED, event="rollback").text().startswith("prod: rolled back to r7-0123 by alice@desk\n")


@pytest.mark.parametrize(
    ("playbook", "tags", "name"),
    [
        ("site", [], "deployment"),
        ("site", ["all"], "deployment"),
        ("site", ["teardown"], "teardown"),
        ("site", ["image", "api"], "image, api"),
        ("tear_down", [], "tear down"),
        ("roll-back", [], "roll back"),
    ],
)
def test_a_run_is_called_by_what_it_does(playbook: str, tags: list[str], name: str) -> None:
    assert run_name(playbook, tags) == name


def test_a_long_error_is_cut() -> None:
    assert len(replace(FAILED, error="x" * 9000).text()) < 700


def test_templates_have_the_shapes_of_their_readers() -> None:
    assert TEMPLATES["slack"](FAILED) == {"text": TEXT}
    assert TEMPLATES["matrix"](FAILED)["text"] == TEXT
    found = TEMPLATES["json"](FAILED)
    assert (found["event"], found["release"], found["who"], found["link"]) == (
        "failure",
        "r7-0123",
        "alice@desk",
        "https://ci/1",
    )
    (attachment,) = TEMPLATES["teams"](FAILED)["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    first, *rest = attachment["content"]["body"]
    assert (first["color"], [block["text"] for block in rest]) == ("Attention", TEXT.splitlines()[1:])


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/planted-path", "file:///planted", "http://[planted"])
def test_a_listener_that_is_not_reached_is_told_of_without_its_address(address: str) -> None:
    problem = send(address, "json", FAILED)
    assert problem.startswith(("the listener was not reached", "the address begins neither"))
    assert "planted" not in problem


def test_every_documented_template_is_there() -> None:
    assert set(TEMPLATES) == {"json", "slack", "teams", "matrix"}
    assert notification.SECONDS <= 10
