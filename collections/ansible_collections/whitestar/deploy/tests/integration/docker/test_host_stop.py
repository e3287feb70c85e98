# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers of a project are stopped, database last, and started again, database first, with nothing lost."""

from __future__ import annotations

from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import SERVICE_LABEL, DockerClient
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.tests.helpers import SERVICE, Result, run_module, tiny_workload


def test_six_steps(state: State, own_engine: dict[str, Any], tiny_image: str) -> None:
    """Stop and start, each in check mode, for real and again; what people start when they want it stays stopped."""
    engine = DockerClient.of(own_engine)
    project = Project.of(state, engine)
    for name in ("database", "proxy", "pgadmin"):
        service = {"image": tiny_image, "command": ["tiny", "sleep"], "init": True, "restart": "unless-stopped"}
        service |= {"networks": ["data"]} | ({"profiles": [name]} if name == "pgadmin" else {})
        project.write(name, {"services": {name: service}})
        project.up(name)
    state.images.mkdir()
    workload = tiny_workload(tiny_image, "a" * 12)
    given = {"state_directory": str(state.root), "engine": own_engine, "drain_seconds": 5, "ready_seconds": 60}
    done = run_module("host_release", given | {"workload": workload, "by": "alice@laptop", "why": "deploy"})
    assert not done.failed, done.output

    def have(wanted: str, *, check: bool = False) -> Result:
        return run_module(
            "host_lifecycle",
            given | {"state": wanted, "address": "127.0.0.1:9", "probes": SERVICE["probes"]},
            check=check,
        )

    def running() -> list[str]:
        found = [each for each in engine.containers() if each["State"]["Running"]]
        return sorted(each["Config"]["Labels"][SERVICE_LABEL] for each in found)

    def ids() -> set[str]:
        return {each["Id"] for each in engine.containers() if "api" not in each["Name"]}

    kept = ids()
    names = ("proxy", "api-blue", "pgadmin", "database")
    stops = [f"stop {engine.project}-{name}-1" for name in names]
    assert have("stopped", check=True)["steps"][:4] == stops
    assert running() == sorted(names)
    assert have("stopped")["steps"] == [*stops, "record that it is stopped"]
    assert running() == []
    for check in (True, False):
        assert not have("stopped", check=check).changed
    (line,) = run_module("host_drift_info", {"state_directory": str(state.root), "engine": own_engine})["differences"]
    assert "is stopped: --tags start" in line["text"]
    starts = ["start database", "start proxy", f"start release {workload['release']}"]
    assert have("started", check=True)["steps"] == starts
    assert running() == []
    assert have("started")["steps"] == starts
    assert running() == ["api-blue", "database", "proxy"]
    assert ids() == kept, "the same containers"
    for check in (True, False):
        assert not have("started", check=check).changed
    have("stopped")
    status = have("reported")["status"]
    assert set(status["processes"].values()) == {"exited"}, "health is no matter of what does not run"
    assert status["down"] == "all of it, since it was stopped"
    assert have("absent").changed
    assert engine.containers() == []
