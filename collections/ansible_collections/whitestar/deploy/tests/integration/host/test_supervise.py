# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor of a local target starts again what has ended by itself, and nothing that somebody wants down."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import exclusively, json_bytes
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import (
    Process,
    service_environment,
    unprivileged,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import Lock, Owner
from ansible_collections.whitestar.deploy.plugins.module_utils.release.stopped import Stopped
from ansible_collections.whitestar.deploy.tests.helpers import ACCOUNT, kill, make_workload, run_module, wait_for

SCRIPT = Path(__file__).parents[3] / "roles/titanic_api/files/supervise.py"
# Longer than a round: what has not been started by then will not be.
ROUNDS_SECONDS = 3


class Site:
    """A release, a database and a reverse proxy, which is any program that goes on, and their supervisor."""

    def __init__(self, state: State, bindir: Path) -> None:
        self.state = state
        self.cluster = PostgresServer(state.database, bindir, unprivileged(ACCOUNT))
        self.cluster.make()
        self.cluster.write_files(self.cluster.stale_files({"fsync": "off"}), {"fsync": "off"})
        self.cluster.start()
        given = {"state_directory": str(state.root), "workload": make_workload(state, "a" * 12)}
        assert run_module("host_release", given | {"by": "alice@laptop", "why": "deploy"}).changed
        state.daemon("caddy").start(["sleep", "600"], service_environment({"SEEN": "as it was"}), {"command": "c"})
        self.supervisor = state.daemon("supervisor")
        self.words = [sys.executable, str(SCRIPT), str(state.root), str(bindir)]
        self.supervisor.start(self.words, service_environment({}), {"command": "s"})

    def pid(self, name: str) -> int:
        if name == "postgresql":
            return int((self.cluster.data / "postmaster.pid").read_text().split()[0])
        return int(json.loads((self.state.run / f"{name}.json").read_text())["pid"])

    def runs(self, name: str) -> bool:
        try:
            return Process.of(self.pid(name)) is not None
        except (OSError, IndexError):
            return False

    def kill(self, name: str) -> int:
        pid = self.pid(name)
        kill(pid)
        return pid

    def comes_back(self, name: str, gone: int) -> bool:
        return self.runs(name) and self.pid(name) != gone

    def said(self) -> str:
        return self.supervisor.log.read_text()

    def has_said(self, words: str) -> bool:
        return words in self.said()


@pytest.fixture
def site(state: State, bindir: Path) -> Iterator[Site]:
    found = Site(state, bindir)
    yield found
    found.supervisor.stop(2)
    found.cluster.stop()


def test_what_ends_by_itself_is_started_again_as_it_was(site: Site) -> None:
    for name in ("postgresql", "caddy", "blue"):
        gone = site.kill(name)
        wait_for(partial(site.has_said, f"{name} has ended; it is started again"), 30)
        assert site.comes_back(name, gone)
    assert site.cluster.run_sql("SELECT 1") == "1"
    daemon = site.state.daemon("caddy")
    assert daemon.facts()["command"] == "c", "a run knows it again"
    process = daemon.process()
    assert process
    assert b"SEEN=as it was" in Path(f"/proc/{process.pid}/environ").read_bytes()
    address = site.state.address("blue")
    wait_for(lambda: (answer := try_request(address, "/readyz")) and answer.status == 200, 20)
    # A crash of the supervisor takes nothing with it; at boot another one is started by hand, which a run finds.
    site.kill("supervisor")
    assert site.runs("blue")
    before = dict(site.supervisor.facts())
    pid = os.posix_spawn(sys.executable, site.words, service_environment({}))
    try:
        wait_for(lambda: site.supervisor.facts()["pid"] == pid, 10)
        assert site.supervisor.facts() | {"pid": 0, "started": 0} == before | {"pid": 0, "started": 0}
        second = site.state.daemon("second")
        second.start(site.words, service_environment({}), {})
        wait_for(lambda: second.process() is None, 10)
        assert "another one looks after it" in second.log_tail()
    finally:
        os.kill(pid, 15)
        os.waitpid(pid, 0)


def test_nothing_is_started_that_somebody_wants_down(site: Site) -> None:
    state = site.state
    me = Process.of(os.getpid())
    assert me
    owner = Owner(os.uname().nodename, "alice", me.pid, me.started)
    Lock(state.lock).acquire(owner, 3600)
    gone = site.kill("blue")
    with state.exclusively_of("caddy"), exclusively(site.cluster.directory):
        ended = {name: site.kill(name) for name in ("caddy", "postgresql")}
        time.sleep(ROUNDS_SECONDS)
        assert [name for name in ended if site.runs(name)] == [], "steps are at work on them"
    with state.exclusively():  # as a switch is, which needs them
        for name, pid in ended.items():
            wait_for(partial(site.comes_back, name, pid), 20)
    assert not site.runs("blue"), "a run is at work"
    state.write_stopped(Stopped.now("alice@laptop"))
    site.kill("caddy")
    Lock(state.lock).release(owner)
    time.sleep(ROUNDS_SECONDS)
    assert [name for name in ("caddy", "blue") if site.runs(name)] == [], "it is stopped"
    state.forget_stopped()
    # The lock of a run that was killed keeps nobody.
    Lock(state.lock).acquire(Owner(owner.host, "alice", 2**22, 1), 3600)
    wait_for(lambda: site.comes_back("blue", gone), 20)

    # A release that is not the ledger's, and one that is held back.
    state.drain_file("blue").touch()
    site.kill("blue")
    other: dict[str, Any] = {"pid": 2**22, "started": 1, "argv": ["sleep", "600"], "environment": {}}
    (state.run / "green.json").write_bytes(json_bytes(other | {"release": "failed"}))
    time.sleep(ROUNDS_SECONDS)
    assert not site.runs("blue")
    assert not site.runs("green")


def test_what_cannot_be_started_is_tried_again_ever_more_rarely(site: Site) -> None:
    """As when the disk is full: once there is room again it runs, and the log tells of each attempt."""
    programs = site.state.root / "door"
    record = site.state.daemon("caddy").record
    facts = json.loads(record.read_text())
    site.kill("caddy")
    record.write_bytes(json_bytes(facts | {"argv": [str(programs), "600"]}))
    wait_for(lambda: site.said().count("caddy has ended and cannot be started") == 3, 30)
    assert [f"the next time in {seconds} s" in site.said() for seconds in (1, 2, 4)] == [True] * 3
    programs.symlink_to("/bin/sleep")
    wait_for(lambda: site.runs("caddy"), 30)
