# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that cannot be talked to is named, and what the cluster keeps for itself is taken away."""

from __future__ import annotations

import importlib
import tempfile
import threading
from contextlib import nullcontext
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any, ClassVar

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.doc_fragments.cluster import ModuleDocFragment
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes import client as module
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import without_server_fields
from ansible_collections.whitestar.deploy.tests.cluster_helpers import fields, refusal
from ansible_collections.whitestar.deploy.tests.helpers import COLLECTION, MODULES


def test_a_program_that_is_not_there_is_named(place: Path) -> None:
    said = refusal({"kubectl": f"{place}/kubectl", "namespace": "n"})
    assert said == f"the program {place}/kubectl cannot be run (No such file or directory)"


def test_a_program_that_does_not_listen_is_told_by_its_words(place: Path) -> None:
    program = place / "kubectl"
    program.write_text("#!/bin/sh\necho 'error: no such luck' >&2\nexit 1\n")
    program.chmod(0o755)
    assert refusal({"kubectl": str(program), "namespace": "n"}) == "kubectl cannot talk to the cluster: no such luck"


def test_what_the_cluster_keeps_is_stripped() -> None:
    kept = {"kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"x": 1}}
    own = {"resourceVersion": "7", "uid": "u", "generation": 1, "creationTimestamp": "now", "managedFields": []}
    full = kept | {"metadata": {"name": "p", "labels": {"a": "b"}, **own}, "status": {"phase": "Running"}}
    assert without_server_fields(full) == kept
    assert without_server_fields(None) == {}


def test_fields_are_taken_where_they_are() -> None:
    assert fields([{"a": {"b": 1}}, {"a": 2}, {}, {"a": {"b": 0}}], "a", "b") == [1, 0]


def test_the_documented_cluster_is_the_one_that_modules_take() -> None:
    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]["cluster"]["suboptions"]
    options: Any = KubernetesClient.OPTION["options"]
    assert {name: option.get("default") for name, option in documented.items()} == {
        name: option.get("default") for name, option in options.items()
    }
    takers = sorted(path.stem for path in (COLLECTION / "plugins" / "modules").glob("kubernetes_*.py"))
    assert len(takers) >= 8
    for name in takers:
        text = importlib.import_module(f"{MODULES}.{name}").DOCUMENTATION
        assert "whitestar.deploy.cluster" in yaml.safe_load(text)["extends_documentation_fragment"]


class Busy(BaseHTTPRequestHandler):
    """Answers the first two requests that it is away, and those that follow as asked."""

    seen: ClassVar[list[str]] = []
    status = HTTPStatus.SERVICE_UNAVAILABLE

    def do_GET(self) -> None:
        self.seen.append(self.command)
        busy = len(self.seen) <= 2
        self.send_response(self.status if busy else HTTPStatus.OK)
        body = b"away" if busy else b'{"gitVersion": "v1.36.3"}'
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def address_string(self) -> str:
        """A socket's peer has no address."""
        return "here"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("method", "status", "asked"),
    [
        ("GET", HTTPStatus.SERVICE_UNAVAILABLE, 3),
        ("GET", HTTPStatus.TOO_MANY_REQUESTS, 3),
        ("POST", HTTPStatus.TOO_MANY_REQUESTS, 3),
        ("POST", HTTPStatus.SERVICE_UNAVAILABLE, 1),
    ],
)
def test_a_cluster_that_is_busy_is_asked_again_unless_it_may_have_done_it(
    method: str, status: HTTPStatus, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_POLL_SECONDS", 0)
    monkeypatch.setattr(Busy, "status", status)
    Busy.seen.clear()
    with tempfile.TemporaryDirectory() as directory:
        cluster = KubernetesClient(namespace="n", _directory=directory)
        with UnixStreamServer(f"{directory}/socket", Busy) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            told = nullcontext() if asked == 3 else pytest.raises(ClusterError, match="does not answer \\(away\\)")
            with told:
                assert cluster.request(method, "/version") == {"gitVersion": "v1.36.3"}
            server.shutdown()
    assert Busy.seen == [method] * asked
    assert cluster.calls == 1
