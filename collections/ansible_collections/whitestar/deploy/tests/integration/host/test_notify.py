# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A listener hears of a run that deploys (plugins.callback.notify): of its start, and of how it ended."""

from __future__ import annotations

import getpass
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.tests.helpers import write_play

VERIFY = {"ansible.builtin.import_role": {"name": "whitestar.deploy.titanic_image", "tasks_from": "verify"}}
ROLLBACK = {
    "ansible.builtin.import_role": {"name": "whitestar.deploy.titanic_rollback", "tasks_from": "local"},
    "when": False,
}
SERVES = {"ansible.builtin.set_fact": {"titanic_api_result": {"live": {"release": "r7"}}}}
FAILS = {"name": "api | Fail", "ansible.builtin.fail": {"msg": "no room"}}
FAILS_IN_SECRET = {**FAILS, "ansible.builtin.fail": {"msg": "planted-secret"}, "no_log": True}


class Listener(http.server.ThreadingHTTPServer):
    """Keeps what it is told, and answers with a status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: list[dict[str, Any]] = []
        self.status = 200

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/planted-token"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    with Listener() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("TITANIC_NOTIFY_URL", server.address)
        yield server
        server.shutdown()


def run(place: Path, *tasks: dict[str, Any], arguments: tuple[str, ...] = (), playbook: str = "play.yml") -> str:
    variables = {"titanic_provider": "local", "titanic_image_context": "/none"}
    play = {"hosts": "all", "gather_facts": False, "vars": variables, "tasks": list(tasks)}
    command, environment = write_play(place, play, {"here": {"ansible_connection": "local"}})
    # Which leaves out what is set for this machine's own deployments.
    environment |= {name: value for name, value in os.environ.items() if name.startswith("TITANIC_NOTIFY_")}
    environment["ANSIBLE_CALLBACKS_ENABLED"] = "whitestar.deploy.notify"
    (place / "play.yml").rename(place / playbook)
    done = subprocess.run(
        [*command[:-1], playbook, *arguments], cwd=place, env=environment, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def test_a_start_and_a_success_are_told(place: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITANIC_NOTIFY_ENVIRONMENT", "staging")
    monkeypatch.setenv("TITANIC_NOTIFY_LINK", "https://ci.example.org/1")
    output = run(place, VERIFY, SERVES)
    assert [told["event"] for told in listener.heard] == ["start", "success"], output
    told = listener.heard[-1]
    assert (told["environment"], told["release"], told["link"]) == ("staging", "r7", "https://ci.example.org/1")
    assert told["text"].startswith("staging: play of r7 succeeded by ")
    assert told["who"].startswith(f"{getpass.getuser()}@")
    assert "planted-token" not in output


def test_a_failure_is_told_with_its_reason_and_without_secrets(place: Path, listener: Listener) -> None:
    run(place, VERIFY, FAILS)
    assert [told["event"] for told in listener.heard] == ["start", "failure"]
    assert listener.heard[-1]["error"] == "here: Fail: no room"
    run(place, VERIFY, FAILS_IN_SECRET)
    assert listener.heard[-1]["event"] == "failure"
    assert "planted-secret" not in json.dumps(listener.heard)


def test_a_rollback_is_told_as_one(place: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITANIC_NOTIFY_TEMPLATE", "slack")
    monkeypatch.setenv("TITANIC_NOTIFY_EVENTS", "rollback")
    run(place, ROLLBACK, SERVES)
    (told,) = listener.heard
    assert list(told) == ["text"]
    assert ": rolled back to r7 by " in told["text"]


@pytest.mark.parametrize("arguments", [("--check",), ("--tags", "status")])
def test_a_run_that_only_looks_is_not_told_of(place: Path, listener: Listener, arguments: tuple[str, ...]) -> None:
    run(place, {**VERIFY, "tags": ["always"]}, SERVES, arguments=arguments)
    assert listener.heard == []


def test_a_playbook_that_only_looks_is_not_told_of(place: Path, listener: Listener) -> None:
    run(place, VERIFY, SERVES, playbook="find_drift.yml")
    assert listener.heard == []
    run(place, VERIFY, SERVES, playbook="tear_down.yml")
    assert [told["what"] for told in listener.heard] == ["tear down", "tear down"]


def test_a_listener_that_refuses_fails_no_run(place: Path, listener: Listener) -> None:
    listener.status = 500
    output = run(place, VERIFY, SERVES)
    assert "the listener answered with status 500: nobody was told of: success" in " ".join(output.split())
    assert "failed=0" in output
    assert "planted-token" not in output
