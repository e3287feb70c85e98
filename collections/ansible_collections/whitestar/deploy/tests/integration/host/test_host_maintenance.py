# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A maintenance begins and ends by a file, waits for what was begun, and says who began it."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import make_directory
from ansible_collections.whitestar.deploy.plugins.module_utils.host.maintenance import begin, current, end, in_flight
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.maintenance import Maintenance
from ansible_collections.whitestar.deploy.tests.helpers import Result, history, run_module

MESSAGE = 'Back at <14:00>; "soon"'


class Controls(http.server.BaseHTTPRequestHandler):
    """Answers as the admin socket of Caddy 2.11 does: how many requests each upstream has now, until a moment."""

    idle_at = 0.0

    def do_GET(self) -> None:
        busy = 2 if time.monotonic() < self.idle_at else 0
        body = json.dumps(
            [{"address": "a", "num_requests": busy, "fails": 0}, {"address": "b", "num_requests": 0}]
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_words: object) -> None:
        return


@contextmanager
def controls(state: State, busy_seconds: float = 0) -> Iterator[None]:
    make_directory(state.front, 0o700)
    Controls.idle_at = time.monotonic() + busy_seconds
    server = socketserver.ThreadingUnixStreamServer(str(state.front / "admin.sock"), Controls)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        (state.front / "admin.sock").unlink()


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A state directory in which a release has served."""
    state = State(tmp_path)
    state.write_ledger(history("r1"))
    return state


def maintain(state: State, *, check: bool = False, **options: Any) -> Result:
    own = {"state_directory": str(state.root), "enabled": True, "message": MESSAGE, "by": "alice@here"}
    return run_module("host_maintenance", own | options, check=check)


def test_it_begins_changes_and_ends(state: State) -> None:
    with controls(state):
        assert maintain(state, check=True).changed
        assert current(state) is None
        began = maintain(state)
        assert began.changed
        assert {key: began["maintenance"][key] for key in ("message", "by")} == {"message": MESSAGE, "by": "alice@here"}
        assert not maintain(state, by="bob@there").changed
        assert str(current(state)).endswith(f"by alice@here: {MESSAGE}")
        assert maintain(state, message="Back at 15:00").changed
        assert maintain(state, enabled=False, check=True).changed
        assert current(state) is not None
        assert maintain(state, enabled=False).changed
        assert current(state) is None
        assert not maintain(state, enabled=False).changed


def test_programs_and_people_are_told(state: State) -> None:
    with controls(state):
        maintain(state, retry_seconds=90)
    place = state.front / "maintenance"
    problem = json.loads((place / "problem.json").read_text())
    assert (problem["status"], problem["detail"]) == (503, MESSAGE)
    assert "<p>Back at &lt;14:00&gt;; &quot;soon&quot;</p>" in (place / "page.html").read_text()
    assert (place / "retry_after").read_text() == "90"


def test_what_was_begun_is_waited_for(state: State) -> None:
    with controls(state, busy_seconds=1):
        assert in_flight(state) == 2
        began = time.monotonic()
        assert maintain(state).warnings == []
        assert time.monotonic() - began >= 0.5
    with controls(state, busy_seconds=60):
        (warning,) = maintain(state, drain_seconds=0.2).warnings
        assert "2 requests are still being answered after 0.2 s" in warning


def test_one_that_was_cut_off_is_seen_through(state: State) -> None:
    begin(Maintenance(MESSAGE, 60, "alice@here", "then"), state)
    (state.front / "maintenance/page.html").unlink()
    with controls(state):
        assert not maintain(state).changed
    assert (state.front / "maintenance/page.html").exists()
    end(state)
    assert current(state) is None


def test_where_nothing_serves_there_is_none(tmp_path: Path) -> None:
    assert "nothing is deployed" in maintain(State(tmp_path)).message


def test_a_reverse_proxy_that_does_not_answer_is_named(state: State) -> None:
    assert maintain(state).message.startswith("the reverse proxy's maintenance:")
