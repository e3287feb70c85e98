# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP reaches ports and sockets, and promises that are not kept are all reported."""

from __future__ import annotations

import http.server
import json
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.doc_fragments.tls import ModuleDocFragment
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import (
    TLS_OPTION,
    Tls,
    request,
    try_request,
)
from ansible_collections.whitestar.deploy.tests.helpers import certificate, free_port, run_module


class Handler(http.server.BaseHTTPRequestHandler):
    """A small API: /list, /object, /echo (what came in), anything else is 404; ready when asked for the third time."""

    asked_late = 0

    def do_GET(self) -> None:
        if self.path == "/silence":
            time.sleep(1)
        status, value = self.answer()
        body = json.dumps(value).encode() if self.path != "/text" else b"not JSON"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Total-Count", "3")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def answer(self) -> tuple[int, Any]:
        Handler.asked_late += self.path == "/late"
        length = int(self.headers.get("Content-Length", 0))
        values: dict[str, tuple[int, Any]] = {
            "/list": (200, [1, 2, 3]),
            "/object": (200, {"release": "r1", "count": 3, "nested": {"a": 1}}),
            "/echo": (200, {"sent": self.rfile.read(length).decode(), "x": self.headers.get("X-Test", "")}),
            "/maintained": (503, {"type": "urn:titanic:problem:maintenance", "detail": "back soon"}),
            "/late": (200 if Handler.asked_late > 2 else 503, {}),
        }
        return values.get(self.path, (404, {"title": "Not Found"}))

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_words: object) -> None:
        return


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    Handler.asked_late = 0
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(params=["port", "socket"])
def address(request: pytest.FixtureRequest, place: Path) -> Iterator[str]:
    if request.param == "port":
        tcp = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        with serving(tcp):
            yield f"127.0.0.1:{tcp.server_address[1]}"
    else:
        path = place / "door.sock"
        with serving(UnixServer(str(path), Handler)):
            yield f"unix:{path}"


def test_an_answer_is_whole(address: str) -> None:
    answer = request(address, "/echo", method="POST", headers={"X-Test": "1"}, body=b"hello")
    assert answer.status == 200
    assert answer.json() == {"sent": "hello", "x": "1"}
    assert answer.headers["x-total-count"] == "3"
    assert request(address, "/text").json() is None


def test_silence_ends(address: str) -> None:
    assert try_request(address, "/silence", seconds=0.1) is None
    with pytest.raises(TimeoutError):
        request(address, "/silence", seconds=0.1)


def test_nobody_answers(place: Path) -> None:
    assert try_request(f"127.0.0.1:{free_port()}", "/") is None
    assert try_request(f"unix:{place}/none.sock", "/") is None


KEPT: list[dict[str, Any]] = [
    {"name": "the list comes", "path": "/list", "headers": {"content-type": "application/json", "X-Total-Count": ""}},
    {"name": "the release answers", "path": "/object", "json": {"release": "r1", "nested": {"a": 1}}},
    {"name": "an unknown path is a problem", "path": "/nothing", "status": 404, "json": {"title": "Not Found"}},
    {"name": "headers are sent", "path": "/echo", "request_headers": {"X-Test": "yes"}, "json": {"x": "yes"}},
]
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"path": "/list", "status": 201}, "status is 200, not 201: [1, 2, 3]"),
    ({"path": "/list", "headers": {"content-type": "text/html"}}, "header content-type is 'application/json'"),
    ({"path": "/list", "headers": {"etag": ""}}, "header etag is None"),
    ({"path": "/object", "json": {"release": "r2"}}, "release is 'r1', not 'r2'"),
    ({"path": "/object", "json": {"count": "3"}}, "count is 3, not '3'"),
    ({"path": "/object", "json": {"missing": 1}}, "missing is None, not 1"),
    ({"path": "/list", "json": {"release": "r1"}}, "release is [1, 2, 3], not 'r1'"),
    ({"path": "/text", "status": 404}, "status is 404"),
]


def test_kept_promises(address: str) -> None:
    asked = run_module("http_checks", {"address": address, "promises": KEPT})
    assert not asked.changed
    assert asked["kept"] == [promise["name"] for promise in KEPT]
    assert asked["items"] == {"/list": 3}


def test_a_reverse_proxy_that_has_not_seen_the_release_yet_is_asked_again(address: str) -> None:
    promise = {"name": "it is ready", "path": "/late"}
    Handler.asked_late = 0
    assert (
        "status is 503" in run_module("http_checks", {"address": address, "promises": [promise], "seconds": 0}).message
    )
    assert run_module("http_checks", {"address": address, "promises": [promise]})["kept"] == ["it is ready"]


def test_broken_promises_are_all_reported(address: str) -> None:
    promises = [{"name": f"promise {number}"} | promise for number, (promise, _) in enumerate(BROKEN)]
    asked = run_module("http_checks", {"address": address, "promises": [*promises[:-1], KEPT[0]], "seconds": 0.1})
    for number, (promise, words) in enumerate(BROKEN[:-1]):
        assert f"promise {number}: GET {promise['path']}: {words}" in asked.message
    assert len(asked["broken"]) == len(BROKEN) - 1
    assert asked["kept"] == [KEPT[0]["name"]]


def test_a_reverse_proxy_that_is_not_there(place: Path) -> None:
    asked = run_module("http_checks", {"address": f"unix:{place}/none.sock", "promises": KEPT[:1], "seconds": 0.1})
    assert f"the list comes: GET /list: no answer from unix:{place}/none.sock" in asked.message


def test_nothing_is_asked_in_check_mode(place: Path) -> None:
    asked = run_module("http_checks", {"address": f"unix:{place}/none.sock", "promises": KEPT}, check=True)
    assert not asked.changed
    assert asked["kept"] == []


@contextmanager
def encrypted(place: Path, **kinds: float) -> Iterator[str]:
    """A server with a certificate for ``api.example.org`` and its address; the certificate is ``own.pem``."""
    files = certificate("api.example.org", **kinds)
    (place / "own.pem").write_text(files["certificate"])
    (place / "own.key").write_text(files["key"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "own.pem", place / "own.key")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield f"127.0.0.1:{server.server_address[1]}"


def test_a_certificate_is_asked_for_by_its_name_and_not_by_the_address(place: Path) -> None:
    own = str(place / "own.pem")
    with encrypted(place) as address:
        for authority in (own, (place / "own.pem").read_text()):
            assert request(address, "/list", tls=Tls("api.example.org", authority)).json() == [1, 2, 3]
        for tls in (Tls("other.example.org", own), Tls("api.example.org"), Tls("127.0.0.1", own)):
            with pytest.raises(ssl.SSLCertVerificationError):
                request(address, "/list", tls=tls)
        promise = {"name": "there is a list", "path": "/list"}
        given = {"address": address, "promises": [promise], "seconds": 0.1}
        right = run_module("http_checks", given | {"tls": {"hostname": "api.example.org", "authority": own}})
        assert right["kept"] == ["there is a list"]
        wrong = run_module("http_checks", given | {"tls": {"hostname": "other.example.org", "authority": own}})
        assert "certificate is not valid for 'other.example.org'" in wrong.message


def test_an_expired_certificate_is_not_trusted(place: Path) -> None:
    with encrypted(place, days=-1) as address, pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        request(address, "/list", tls=Tls("api.example.org", str(place / "own.pem")))


def test_the_documented_tls_is_the_one_that_modules_take() -> None:
    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]["tls"]["suboptions"]
    options: Any = TLS_OPTION["options"]
    assert {name: option.get("required", False) for name, option in documented.items()} == {
        name: option.get("required", False) for name, option in options.items()
    }


def test_a_reverse_proxy_in_maintenance_is_asked_nothing_else(address: str) -> None:
    promises = [{"name": "m", "path": "/maintained"}, {"name": "n", "path": "/nothing"}]
    asked = run_module("http_checks", {"address": address, "promises": promises})
    assert (asked["maintenance"], asked["kept"]) == ("back soon", [])
