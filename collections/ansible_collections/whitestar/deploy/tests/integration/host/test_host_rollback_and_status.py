# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Going back is chosen from the ledger and the live schema; a look changes nothing; a removal removes ours alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import make_directory
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import (
    Daemon,
    service_environment,
    unprivileged,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import Lock, Owner
from ansible_collections.whitestar.deploy.tests.helpers import (
    ACCOUNT,
    SERVICE,
    Result,
    make_workload,
    record,
    run_module,
    spool,
)


@pytest.fixture
def history(state: State) -> list[dict[str, Any]]:
    """Three releases; the live schema, of which the serving one tells, tolerates releases from 0002 on."""
    workloads = [
        make_workload(state, "a" * 12, required="0001"),
        make_workload(state, "b" * 12, required="0002"),
        make_workload(state, "c" * 12, required="0003", TINY_LIVE_SCHEMA="0002"),
    ]
    record(state, *workloads)
    return workloads


def choose(state: State, release: str = "", *, check: bool = False) -> Result:
    return run_module("host_rollback_target", {"state_directory": str(state.root), "release": release}, check=check)


@pytest.mark.parametrize("check", [True, False])
def test_the_release_before_is_chosen(state: State, history: list[dict[str, Any]], check: bool) -> None:
    before = spool(state.root)
    chosen = choose(state, check=check)
    assert not chosen.changed
    assert (chosen["entry"]["number"], chosen["entry"]["release"]) == (2, history[1]["release"])
    assert chosen["serving"] == history[2]["release"]
    assert spool(state.root) == before


def test_a_release_that_the_live_schema_cannot_serve_is_refused(state: State, history: list[dict[str, Any]]) -> None:
    message = choose(state, "aaaa").message
    assert "rollback refused, nothing was touched: " in message
    assert "needs schema 0001, but the live schema serves releases from 0002 on" in message


def test_a_name_that_is_not_recorded_is_refused(state: State, history: list[dict[str, Any]]) -> None:
    assert "titanic_rollback_to: 'zzz' is not in the ledger" in choose(state, "zzz").message


def test_a_release_that_is_gone_from_the_disk_is_refused(state: State, history: list[dict[str, Any]]) -> None:
    shutil.rmtree(history[1]["image"])
    assert "its image or workload is gone" in choose(state).message


def test_a_database_that_does_not_answer_is_no_permission(state: State) -> None:
    record(state, make_workload(state, "a" * 12), make_workload(state, "b" * 12))
    message = choose(state).message
    assert "the live schema is not known" in message
    assert "tiny release: the database does not answer" in message


def test_an_answer_without_a_schema_is_no_permission(state: State) -> None:
    record(state, make_workload(state, "a" * 12), make_workload(state, "b" * 12, TINY_LIVE_SCHEMA="null"))
    assert "the live schema is not known" in choose(state).message


def test_nothing_deployed_is_refused(state: State) -> None:
    assert "nothing has been deployed here yet" in choose(state).message


class Target:
    """A state directory that is looked at or removed."""

    def __init__(self, state: State, bindir: Path) -> None:
        self.state = state
        self.bindir = bindir

    def __call__(self, wanted: str = "reported", *, check: bool = False) -> Result:
        given = {
            "state_directory": str(self.state.root),
            "state": wanted,
            "account": ACCOUNT,
            "bindir": str(self.bindir),
            "address": f"unix:{self.state.root}/door.sock",
            "probes": SERVICE["probes"],
        }
        return run_module("host_lifecycle", given, check=check)


@pytest.fixture
def target(state: State, bindir: Path) -> Target:
    return Target(state, bindir)


def test_nothing_there_is_nothing(target: Target) -> None:
    target.state.root.rmdir()
    for wanted in ("reported", "absent"):
        seen = target(wanted)
        assert not seen.changed
        assert seen["status"] == {}


def test_a_look_names_what_is_there_and_changes_nothing(target: Target, history: list[dict[str, Any]]) -> None:
    Lock(target.state.lock).acquire(Owner("another.example", "carol", 1, 1), 3600)
    before = spool(target.state.root)
    seen = target()
    assert not seen.changed
    status = seen["status"]
    assert (status["release"], status["version"], status["rows"]) == (history[2]["release"], "1.0.0", "unknown")
    assert status["ready"] is False
    assert status["lock"].startswith("carol@another.example")
    assert [line.split()[0] for line in status["ledger"]] == ["1", "2", "3"]
    assert status["rollback_to"] == [history[1]["release"], history[0]["release"]]
    assert status["processes"] == dict.fromkeys(("supervisor", "caddy", "blue", "green", "postgresql"), "stopped")
    assert status["down"].startswith(f"caddy, release {history[2]['release']}: its log says why; --tags start")
    assert spool(target.state.root) == before


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_removal_stops_and_removes_everything(target: Target) -> None:
    """The six steps of a deletion, with a real database and a real process."""
    state = target.state
    cluster = PostgresServer(state.database, target.bindir, unprivileged(ACCOUNT))
    cluster.make()
    cluster.write_files(cluster.stale_files({"fsync": "off"}), {"fsync": "off"})
    cluster.start()
    make_directory(state.run, 0o755)
    blue: Daemon = state.daemon("blue")
    process = blue.start(["sleep", "60"], service_environment({}), {"release": "r1"})
    try:
        status = target()["status"]
        assert status["processes"]["blue"] == f"pid {process.pid} r1"
        assert status["processes"]["postgresql"] == "running"
        seen = target("absent", check=True)
        assert seen.changed
        assert "postgresql" in seen["diff"]["before"]
        assert process.alive()
        assert cluster.running()
        removal = f"remove {state.root} with all data, secrets and releases"
        assert seen["steps"] == [removal]
        assert target("absent")["steps"] == ["stop blue", "stop postgresql", removal]
        assert not state.root.exists()
        assert not process.alive()
        for check in (True, False):
            assert not target("absent", check=check).changed
    finally:
        process.stop(0.1)
        if cluster.exists():
            cluster.stop()


def test_the_lock_of_the_run_alone_is_no_deployment(target: Target) -> None:
    Lock(target.state.lock).acquire(Owner("another.example", "carol", 1, 1), 3600)
    seen = target("absent")
    assert not seen.changed
    assert seen["diff"]["before"] == ""
    assert not target.state.root.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_directory_that_is_a_file_system_of_its_own_is_emptied(target: Target) -> None:
    root = target.state.root
    root.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", root], check=True)
    try:
        (root / "lost+found").mkdir()
        (root / "images" / "one").mkdir(parents=True)
        (root / "ledger.json").write_text("{}")
        assert target("absent").changed
        assert [path.name for path in root.iterdir()] == ["lost+found"]
        assert not target("absent").changed
    finally:
        subprocess.run(["umount", root], check=True)


@pytest.mark.parametrize("name", ["thesis.tex", ".profile"])
def test_a_directory_that_is_not_ours_alone_is_refused(
    target: Target, history: list[dict[str, Any]], name: str
) -> None:
    (target.state.root / name).write_text("years of work")
    before = spool(target.state.root)
    for check in (True, False):
        complaint = target("absent", check=check).message
        assert f"holds what no deployment made ({name}). Move that away first" in complaint
    assert spool(target.state.root) == before
