# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a local target is stopped with all data kept, and started again as it was."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import json_bytes
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import service_environment, unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import STOPPED, State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.local.processes import FRONT, POSTGRESQL
from ansible_collections.whitestar.deploy.tests.helpers import (
    ACCOUNT,
    SERVICE,
    DriftTarget,
    Result,
    make_workload,
    run_module,
    spool,
)

ALL = [f"stop {name}" for name in (FRONT, "blue", POSTGRESQL)]


class Site:
    """A release, a database with a row and a reverse proxy, which is any program that goes on."""

    def __init__(self, state: State, bindir: Path) -> None:
        self.state = state
        self.bindir = bindir
        self.cluster = PostgresServer(state.database, bindir, unprivileged(ACCOUNT))
        self.workload = make_workload(state, "a" * 12)

    def begin(self) -> None:
        self.cluster.make()
        self.cluster.write_files(self.cluster.stale_files({"fsync": "off"}), {"fsync": "off"})
        self.cluster.start()
        self.cluster.run_sql("CREATE TABLE kept AS SELECT 1 AS n")
        assert self.deploy().changed
        self.state.daemon("caddy").start(["sleep", "600"], service_environment({"SEEN": "as it was"}), {"command": "c"})

    def deploy(self, **workload: Any) -> Result:
        given = {"state_directory": str(self.state.root), "workload": self.workload | workload}
        return run_module("host_release", given | {"by": "alice@laptop", "why": "deploy", "drain_seconds": 3})

    def have(self, wanted: str, *, check: bool = False) -> Result:
        given = {"state_directory": str(self.state.root), "state": wanted, "account": ACCOUNT, "by": "bob@laptop"}
        given |= {
            "bindir": str(self.bindir),
            "address": f"unix:{self.state.root}/door.sock",
            "probes": SERVICE["probes"],
        }
        return run_module("host_lifecycle", given | {"drain_seconds": 3, "ready_seconds": 20}, check=check)

    def runs(self) -> list[str]:
        listed: dict[str, str] = self.have("reported")["status"]["processes"]
        return sorted(name for name, words in listed.items() if words != "stopped")


@pytest.fixture
def site(state: State, bindir: Path) -> Any:
    found = Site(state, bindir)
    found.begin()
    yield found
    if state.database.exists():
        found.cluster.stop()


def test_six_steps(site: Site) -> None:
    """Stop and start, each in check mode, for real and again; what is kept is kept."""
    ledger = (site.state.root / "ledger.json").read_bytes()
    assert site.have("stopped", check=True)["steps"][:3] == ALL
    assert site.runs() == ["blue", "caddy", "postgresql"]
    assert site.have("stopped")["steps"] == [*ALL, "record that it is stopped"]
    assert site.runs() == []
    before = spool(site.state.root)
    for check in (True, False):
        again = site.have("stopped", check=check)
        assert (again.changed, again["steps"]) == (False, [])
    assert spool(site.state.root) == before
    told = site.have("reported")["status"]
    assert told["stopped"].startswith("since ")
    assert "by bob@laptop: --tags start" in told["stopped"]
    # What does not run is one difference.
    drift = DriftTarget(site.state, account=ACCOUNT, bindir=str(site.bindir)).lines()
    assert drift == [f"directory {site.state.root}: is stopped: --tags start"]

    started = ["start postgresql", "start caddy", f"start release {site.workload['release']}"]
    assert site.have("started", check=True)["steps"] == started
    assert spool(site.state.root) == before
    assert site.have("started")["steps"] == started
    assert site.runs() == ["blue", "caddy", "postgresql"]
    assert site.cluster.run_sql("SELECT n FROM kept") == "1"
    assert site.state.daemon("caddy").facts()["environment"]["SEEN"] == "as it was"
    assert (site.state.root / "ledger.json").read_bytes() == ledger
    for check in (True, False):
        assert not site.have("started", check=check).changed
    told = site.have("reported")["status"]
    # All runs, and this reverse proxy answers nobody.
    assert (told["stopped"], told["down"].partition(" at ")[0]) == ("no", "the reverse proxy runs and does not answer")


def test_a_deployment_starts_what_was_stopped_and_leaves_no_record_of_another_colour(site: Site) -> None:
    site.workload = make_workload(site.state, "b" * 12)
    assert site.deploy()["action"] == "deployed"
    site.have("stopped")
    # Killed rather than stopped, it would have left its record too.
    assert not site.state.daemon("green").record.exists()
    (site.state.run / "green.json").write_bytes(json_bytes({"pid": 2**22, "started": 1, "release": "gone"}))
    assert site.deploy()["action"] == "restarted"
    assert not (site.state.root / STOPPED).exists()
    assert "blue" in site.runs()
    assert not site.state.daemon("green").record.exists()


def test_what_ended_by_itself_is_started_and_what_runs_is_left_alone(site: Site) -> None:
    blue = site.state.daemon("blue").process()
    front = site.state.daemon("caddy").process()
    assert blue
    assert front
    front.stop(1)
    assert site.have("started")["steps"] == ["start caddy"]
    assert site.state.daemon("blue").process() == blue


def test_what_cannot_be_started_is_told_and_stays_stopped(site: Site) -> None:
    site.have("stopped")
    record = site.state.daemon("caddy").record
    record.write_bytes(json_bytes({"pid": 2**22, "started": 1, "argv": ["false"], "environment": {}}))
    assert "caddy ended at once" in site.have("started").message
    record.write_bytes(json_bytes({"pid": 2**22, "started": 1}))
    assert "caddy: how it is started is not recorded. Deploy once" in site.have("started").message
    assert site.have("reported")["status"]["stopped"] != "no"


def test_nothing_deployed_is_refused(state: State, bindir: Path) -> None:
    site = Site(state, bindir)
    before = spool(state.root)
    for wanted, verb in (("stopped", "stop"), ("started", "start")):
        for check in (True, False):
            assert f"there is nothing to {verb}" in site.have(wanted, check=check).message
    assert spool(state.root) == before


def test_what_needs_it_running_is_refused_and_a_removal_is_not(site: Site) -> None:
    site.have("stopped")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"state_directory": str(site.state.root), "state": "present", "deploys": False, "account": ACCOUNT}
    given |= {"owner": {"host": "laptop", "user": "bob", "pid": 1, "started": 1}, "address": "127.0.0.1", "port": port}
    for check in (True, False):
        refused = run_module("host_lock", given | {"needs_running": True}, check=check)
        assert refused.message.startswith("the deployment is stopped since ")
    assert not run_module("host_lock", given, check=True).failed
    assert site.have("absent").changed
    assert not site.state.root.exists()
