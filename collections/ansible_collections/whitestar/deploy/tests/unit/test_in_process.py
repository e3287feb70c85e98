# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module in a fork of the controller is ended as one that was sent, and says why it broke."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import ansible_collections.whitestar.deploy.plugins.action.forked as action
import ansible_collections.whitestar.deploy.plugins.plugin_utils.in_process as in_process
import pytest
import yaml
from ansible_collections.whitestar.deploy.tests.helpers import (
    COLLECTION,
)


def test_an_interrupt_lets_the_module_unwind(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(**_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        finally:
            print("unwound")

    monkeypatch.setattr(in_process, "run_module", stuck)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ended = in_process._fork("whitestar.deploy.host_secrets", {})
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended["rc"], ended["stdout"]) == (in_process.INTERRUPTED, "unwound\n")


@pytest.mark.parametrize(("end", "status"), [(SystemExit(3), 3), (SystemExit("no"), 1), (GeneratorExit("odd"), 1)])
def test_nothing_comes_back_from_the_fork(monkeypatch: pytest.MonkeyPatch, end: BaseException, status: int) -> None:
    def leave(**_: object) -> None:
        raise end

    monkeypatch.setattr(in_process, "run_module", leave)
    ended = in_process._fork("whitestar.deploy.host_secrets", {})
    assert ended["rc"] == status
    assert ("GeneratorExit: odd" in ended["stderr"]) == isinstance(end, GeneratorExit)


def test_a_module_that_breaks_says_why() -> None:
    ended = in_process._fork("whitestar.deploy.no_such_module", {})
    assert ended["rc"] == 1
    assert "no_such_module" in json.loads(ended["stdout"])["exception"]["event"]["msg"]


def test_every_module_takes_this_way() -> None:
    routing = yaml.safe_load((COLLECTION / "meta" / "runtime.yml").read_text())["plugin_routing"]
    routes, old = routing["action"], set(routing["modules"])
    modules = {file.stem for file in (COLLECTION / "plugins" / "modules").glob("*.py")}
    own = {file.stem for file in (COLLECTION / "plugins" / "action").glob("*.py")}
    assert set(routes) - old == modules - own
    way = f"whitestar.deploy.{Path(action.__file__).stem}"
    assert {route["redirect"] for name, route in routes.items() if name not in old} == {way}
    assert {route["redirect"].rpartition(".")[2] for route in routing["modules"].values()} <= modules
