# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promises are those of the Titanic API or one's own, and a plan's image is the one that may be built."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.doc_fragments.twins import ModuleDocFragment
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import Answer
from ansible_collections.whitestar.deploy.plugins.module_utils.release import http_checks
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.http_checks import (
    Checks,
    difference,
    release_promises,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.options import RELEASE
from ansible_collections.whitestar.deploy.plugins.module_utils.release.plan import why_not
from ansible_collections.whitestar.deploy.tests.helpers import SERVICE


def test_the_titanic_api_s_promises_are_in_full_and_name_the_release() -> None:
    found = {promise["path"]: promise for promise in release_promises(SERVICE["promises"], "r1")}
    assert len(found) == 9
    assert found["/version"]["json"] == {"release": "r1"}
    assert all(promise.keys() >= found["/"].keys() for promise in found.values())
    unnamed = {promise["path"]: promise for promise in release_promises(SERVICE["promises"], "")}
    assert unnamed["/version"]["json"] == {}
    assert found["/version"]["json"] == {"release": "r1"}, "nothing that is kept was changed"


def test_a_service_has_promises_of_its_own() -> None:
    own = {"name": "it greets", "path": "/hello", "json": {"by": "{release}", "count": 0}}
    (found,) = release_promises([own], "r1")
    assert (found["status"], found["json"]) == (200, {"by": "r1", "count": 0})
    assert release_promises([], "r1") == []


def test_on_trial_a_release_is_asked_all_but_whether_it_is_let_in() -> None:
    checks = Checks.of(
        {"release": "r1", "probes": {"ready": "/readyz", "promises": release_promises(SERVICE["promises"], "r1")}}, None
    )
    asked = {promise["path"] for promise in checks.on_trial()}
    assert asked == {promise["path"] for promise in SERVICE["promises"]} - {"/readyz"}
    assert "/people" in asked
    checks.look()
    checks.require_kept()
    assert Checks.of({"release": "r1", "probes": {"ready": "/readyz"}}, None).on_trial() == [], (
        "a release from before promises were recorded"
    )


def test_what_an_old_replica_still_answers_is_not_taken_for_the_new_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two replicas behind the reverse proxy is on its way out, and keeps what the new one breaks."""
    monkeypatch.setattr(http_checks, "SEEN_WITHIN_SECONDS", 3)
    asked: list[str] = []

    class Replicas(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            old = len(asked) <= 2 or (len(asked) < 9 and len(asked) % 2)
            status = 404 if self.path == "/promised" and not old else 200
            body = json.dumps({"release": "old" if old else "new"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    own = [{"name": "it is promised", "path": "/promised"}, {"name": "it answers", "path": "/version"}]
    wanted = release_promises([own[0], {**own[1], "json": {"release": "{release}"}}], "new")
    with http.server.HTTPServer(("127.0.0.1", 0), Replicas) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        door = {"address": f"127.0.0.1:{server.server_port}", "host": None, "tls": None}
        checks = Checks.of({"release": "new", "probes": {"ready": "/readyz", "promises": wanted}}, door)
        checks.look()
        assert [promise["path"] for promise in checks.kept] == ["/promised"]
        with pytest.raises(ReleaseError, match="breaks a promise: it is promised: GET /promised: status is 404"):
            checks.require_kept()
        server.shutdown()


def test_a_list_that_is_too_long_for_one_answer_is_no_broken_promise() -> None:
    page: dict[str, Any] = {"path": "/people?limit=5", "status": 200, "headers": {}, "json": {}}
    whole = page | {"path": "/people", "or_problem": "urn:titanic:problem:list-too-long"}
    for kind, broken in (("list-too-long", False), ("invalid-query", True)):
        answer = Answer(400, {}, json.dumps({"type": f"urn:titanic:problem:{kind}"}).encode())
        assert bool(difference(whole, answer)) is broken
        assert difference(page, answer)


def test_an_answer_may_take_as_long_as_its_promise_says(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def noted(*_place: str, seconds: float, **_options: Any) -> Answer:
        given.append(seconds)
        return Answer(200, {}, b"")

    monkeypatch.setattr(http_checks, "request", noted)
    slow = {"name": "slow", "path": "/slow", "seconds": 30}
    for promise in release_promises([slow, {"name": "usual", "path": "/usual"}], ""):
        assert http_checks.ReverseProxy("127.0.0.1:9").check(promise, 2)[1] == ""
    assert given == [30, 2]


def test_without_a_plan_every_image_may_be_built() -> None:
    assert why_not("aaaaaaaaaaaa", "") == why_not("aaaaaaaaaaaa", "aaaaaaaaaaaa") == ""
    assert "image aaaaaaaaaaaa instead of bbbbbbbbbbbb. Nothing was built" in why_not("aaaaaaaaaaaa", "bbbbbbbbbbbb")


def test_the_reverse_proxy_is_documented_as_it_is_read() -> None:
    documented = yaml.safe_load(ModuleDocFragment.RELEASE)["options"]["reverse_proxy"]["suboptions"]
    assert set(documented) == set(RELEASE["reverse_proxy"]["options"])
