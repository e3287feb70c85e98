# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody changes on a host is found by name and path: files, processes, containers; secrets by name alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import edited, record_checksums
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import service_environment
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import Lock, Owner
from ansible_collections.whitestar.deploy.tests.helpers import (
    ACCOUNT,
    DriftTarget,
    append_line,
    kill,
    make_workload,
    run_module,
    wait_for,
)

# Processes are started here that outlive what started them.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
ME = "root" if os.geteuid() == 0 else None


@pytest.fixture
def local(state: State, bindir: Path) -> DriftTarget:
    """A release as processes, with a reverse proxy that only sleeps."""
    target = DriftTarget(state, account=ACCOUNT, bindir=str(bindir))
    target.secrets()
    target.release(make_workload(state, "a" * 12, TINY_BEHAVIOUR="good"))
    content = b"one {\n}\n"
    (state.root / "Caddyfile").write_bytes(content)
    record_checksums(state.root, {"Caddyfile": content})
    state.daemon("caddy").start(["/bin/sleep", "600"], service_environment({}), {"command": "c", "configuration": "d"})
    return target


def test_what_a_deployment_leaves_is_no_drift(local: DriftTarget) -> None:
    assert local.lines() == []
    local.release(make_workload(local.state, "a" * 12, TINY_BEHAVIOUR="good"))
    assert local.lines() == []
    local.release(make_workload(local.state, "b" * 12, TINY_BEHAVIOUR="good"))
    assert local.lines() == []
    assert not run_module("host_drift_info", local.options, check=True).changed


def test_nothing_is_not_as_it_was_applied(state: State, bindir: Path) -> None:
    target = DriftTarget(
        state, account=ACCOUNT, bindir=str(bindir), database={"database": "d", "owner": "o", "user": "u"}
    )
    line = "nothing is recorded in it: all of it is gone, or nothing has been deployed"
    assert target.lines() == [f"directory {state.root}: {line}"]
    state.root.rmdir()
    assert target.lines() == [f"directory {state.root}: {line}"]
    state.root.mkdir()


def release_file(target: DriftTarget) -> Path:
    return target.state.configurations / f"{target.workload['release']}.json"


def start_again(target: DriftTarget, colour: str, **environment: str) -> None:
    """Somebody starts a colour by hand, and records it as if it were the release."""
    daemon = target.state.daemon(colour)
    own = {"TITANIC_BIND": target.state.address(colour), "TITANIC_DRAIN_FILE": str(target.state.drain_file(colour))}
    facts = {key: daemon.facts().get(key) for key in ("release", "fingerprint", "at")}
    daemon.stop(0.2)
    (target.state.run / f"{colour}.sock").unlink(missing_ok=True)
    program = Path(target.workload["image"]) / "bin" / "tiny"
    daemon.start(
        [str(program), "serve"], service_environment(target.workload["environment"] | own | environment), facts
    )


def other_pid(target: DriftTarget) -> None:
    """What is recorded of a process is another one's."""
    daemon = target.state.daemon("blue")
    daemon.label({"pid": 1, "started": 1})


LOCAL: dict[str, tuple[Callable[[DriftTarget], object], list[str]]] = {
    "a file is edited": (lambda t: append_line(t.state.root / "Caddyfile"), ["file Caddyfile: was edited"]),
    "a file is gone": (lambda t: (t.state.root / "Caddyfile").unlink(), ["file Caddyfile: is gone"]),
    "a release's settings are edited": (
        lambda t: append_line(release_file(t)),
        ["file releases/RELEASE.json: was edited"],
    ),
    "a release's settings are gone": (
        lambda t: release_file(t).unlink(),
        ["release RELEASE: its recorded workload is gone"],
    ),
    "others may read a secret": (
        lambda t: (t.state.root / "secrets" / "password").chmod(0o644),
        ['file secrets/password: mode: "0600" was applied, is "0644"'],
    ),
    "others may enter": (
        lambda t: (t.state.root / "secrets").chmod(0o755),
        [f'file secrets: mode: "{"0711" if os.geteuid() == 0 else "0700"}" was applied, is "0755"'],
    ),
    "a secret is another": (
        lambda t: t.secrets("by-hand-and-long"),
        ["colour blue: its secrets have changed since it was started"],
    ),
    "a secret is gone": (
        lambda t: (t.state.root / "secrets" / "password").unlink(),
        ["file secrets/password: is gone", "colour blue: its secrets have changed since it was started"],
    ),
    "it is held": (lambda t: t.state.drain_file("blue").touch(), ["colour blue: is held back from requests"]),
    "it was stopped": (lambda t: t.state.daemon("blue").stop(0.2), ["release RELEASE: does not run"]),
    "the reverse proxy was stopped": (
        lambda t: kill(t.state.daemon("caddy").facts()["pid"]),
        ["process caddy: does not run"],
    ),
    "the supervisor was killed": (
        lambda t: (t.state.run / "supervisor.json").write_text('{"pid": 4194304, "started": 1}'),
        ["process supervisor: does not run"],
    ),
    "the release is gone": (
        lambda t: shutil.rmtree(t.workload["image"]),
        ["release RELEASE: image: IMAGE is gone"],
    ),
    "it runs with other settings": (
        lambda t: start_again(t, "blue", TINY_BEHAVIOUR="stubborn"),
        ['process blue: environment.TINY_BEHAVIOUR: "good" was applied, is "stubborn"'],
    ),
    "another one is recorded": (other_pid, ["process blue: pid: 1 was applied, is PID"]),
    "the other colour runs": (
        lambda t: start_again(t, "green"),
        ["colour green: should not run, and runs release None"],
    ),
}


@pytest.mark.parametrize("case", LOCAL)
def test_what_is_planted_is_found(local: DriftTarget, case: str) -> None:
    plant, expected = LOCAL[case]
    pid = str(local.state.daemon("blue").facts()["pid"])
    plant(local)
    words = {"RELEASE": local.workload["release"], "IMAGE": local.workload["image"], "PID": pid}
    for word, value in words.items():
        expected = [line.replace(word, value) for line in expected]
    wait_for(lambda: local.lines() == expected or case != "the reverse proxy was stopped", 10)
    assert local.lines() == expected


def test_who_and_when_are_told(local: DriftTarget) -> None:
    path = local.state.root / "Caddyfile"
    append_line(path)
    os.utime(path, (1, 1))
    (found,) = run_module("host_drift_info", local.options)["differences"]
    assert found["at"] == "1970-01-01T00:00:01Z"
    assert ME is None or found["by"] == ME


def test_a_run_at_work_is_told_of(local: DriftTarget) -> None:
    Lock(local.state.lock).acquire(Owner("another.example", "carol", 1, 1), 3600)
    (warning,) = run_module("host_drift_info", local.options).warnings
    assert "carol@another.example" in warning


def test_a_database_that_does_not_run_is_found(local: DriftTarget) -> None:
    names = {"database": "titanic", "owner": "o", "user": "u"}
    assert local.lines(database=names) == ["database titanic: does not run"]


def test_configuration_of_the_server_is_looked_at(place: Path, bindir: Path, cluster: PostgresServer) -> None:
    """Its files are taken note of when they are written, and found when they are edited."""
    assert list(edited(cluster.directory)) == []
    kept = (cluster.data / "pg_hba.conf").read_text()
    try:
        (cluster.data / "pg_hba.conf").write_text(f"host all all all trust\n{kept}")
        assert list(edited(cluster.directory)) == [(cluster.data / "pg_hba.conf", "was edited")]
    finally:
        (cluster.data / "pg_hba.conf").write_text(kept)
    assert list(edited(cluster.directory)) == []
