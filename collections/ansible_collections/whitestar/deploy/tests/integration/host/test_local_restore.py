# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore goes to the very moment that was asked for, says before what it loses, and can be gone back from."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import exchange
from ansible_collections.whitestar.deploy.plugins.module_utils.local.base_backup import archive_now, mark
from ansible_collections.whitestar.deploy.plugins.module_utils.local.restore import kept_data
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import stamp
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import Rotation
from ansible_collections.whitestar.deploy.tests.backup_helpers import QUICK, BackedUp
from ansible_collections.whitestar.deploy.tests.helpers import Result, run_module


@pytest.fixture
def kept(backed_up: BackedUp) -> Iterator[list[str]]:
    """The rows of before a test; it may not touch what serves."""
    rows = backed_up.names()
    before = {path.name for path in backed_up.state.root.iterdir()}
    yield rows
    assert backed_up.names() == rows
    assert {path.name for path in backed_up.state.root.iterdir()} == before


def test_a_time_between_two_acknowledged_writes(backed_up: BackedUp) -> None:
    backed_up.write("before the moment")
    time.sleep(0.01)
    moment = datetime.now(UTC)
    time.sleep(0.01)
    backed_up.write("after the moment")
    planned = backed_up.plan(stamp(moment))
    assert not planned.failed, planned.message
    plan = planned["plan"]
    assert plan["lost_rows"] == 1
    assert plan["rows"]["public.people"] == {"live": 3, "restored": 2}
    assert 0 < plan["lost_seconds"] < 120
    assert backed_up.names()[-1] == "after the moment", "a plan touches nothing"
    done = backed_up.switch()
    assert not done.failed, done.message
    assert backed_up.names()[-1] == "before the moment"
    assert not (backed_up.state.root / "restore").exists()
    assert done["plan"]["release"].startswith("b" * 12), "the newest one, which fits"
    event = backed_up.state.ledger().last_event("restore")
    assert event is not None
    assert (event["lost_rows"], event["by"]) == (1, "alice@laptop")


def test_the_way_back_and_its_end(backed_up: BackedUp) -> None:
    backed_up.write("after the restore")
    plan = backed_up.restore("previous")
    assert backed_up.names()[-1] == "after the moment"
    assert plan["kept"]
    backed_up.restore("previous")
    assert backed_up.names()[-1] == "after the restore", "and to and fro"
    assert len(kept_data(backed_up.state)) == 1
    assert backed_up.run("local_restore", state="discarded", check=True).changed
    assert len(kept_data(backed_up.state)) == 1
    assert backed_up.run("local_restore", state="discarded").changed
    assert kept_data(backed_up.state) == []
    assert "no data of before a restore are kept" in backed_up.plan("previous").message


def test_a_new_timeline_is_archived_and_restored_along(backed_up: BackedUp) -> None:
    assert backed_up.server.query("SELECT timeline_id FROM pg_control_checkpoint()") == 2
    backed_up.write("on the new timeline")
    backed_up.restore("latest")
    assert backed_up.names()[-1] == "on the new timeline", "from a backup of the timeline before"
    done = backed_up.backup()
    assert done["backup"]["kind"] == "full", "the first one of the timeline"
    plan = backed_up.plan(stamp(backed_up.moments["after the moment"]))
    assert not plan.failed, plan.message
    assert plan["plan"]["rows"]["public.people"]["restored"] == 3, "that time is of the timeline that served then"
    assert not backed_up.backup().failed


def test_latest_loses_nothing_and_an_incremental_backup_is_combined(backed_up: BackedUp) -> None:
    backed_up.write("one")
    assert backed_up.backup()["backup"]["kind"] == "incremental"
    backed_up.write("two")
    before = backed_up.names()
    plan = backed_up.restore("latest")
    assert (plan["lost_rows"], plan["not_archived"]) == (0, "")
    assert plan["backup"].endswith("-incremental")
    assert backed_up.names() == before
    assert backed_up.server.query("""SELECT count(*) FROM "Odd 'name" """, "people") == 20000
    assert not backed_up.backup().failed


def test_logins_are_those_of_now(backed_up: BackedUp) -> None:
    def logins() -> object:
        asked = "SELECT json_agg(rolname ORDER BY rolname) FROM pg_roles WHERE rolcanlogin AND rolname ~ '^people_app'"
        return backed_up.server.query(asked)

    backed_up.write("before the rotation")
    moment = stamp(datetime.now(UTC))
    time.sleep(0.01)
    backed_up.write("after the rotation")
    password = backed_up.state.root / "secrets/user_a"
    password.write_text("planted-password-of-the-login-of-now")
    backed_up.state.write_rotation(Rotation("_a", "_a", {}))
    backed_up.restore(moment)
    assert logins() == ["people_app_a"], "that moment knew another one"
    # As on a machine that has the backup and nothing else.
    (backed_up.state.root / "rotation.json").unlink()
    password.unlink()
    backed_up.restore("latest")
    assert logins() == ["people_app"], "nobody has the password of the other one any more"
    assert not backed_up.backup().failed


def test_a_name_and_a_release(backed_up: BackedUp) -> None:
    backed_up.write("before the point")
    assert not backed_up.backup(name="import").failed
    backed_up.write("after the point")
    ledger = backed_up.state.ledger()
    point = mark(backed_up.server, "before-c")
    ledger, entry = ledger.with_event("point", **point).add(
        release="c" * 12 + "-1", image="c", config="c", schema_required="0002", schema_tolerates="0001", version="1",
        by="alice", why="deploy", outcome="started", point=point["name"],
    )  # fmt: skip
    backed_up.state.write_ledger(ledger.finish(entry.number, "failed"))
    refused = backed_up.plan("release cccc")
    assert "release 'cccc' is not in the ledger" in refused.message, "a failed one has served nobody"
    backed_up.state.write_ledger(ledger.finish(entry.number, "interrupted"))
    backed_up.write("after the release")
    backed_up.restore("release cccc")
    assert backed_up.names()[-1] == "after the point"
    backed_up.restore("import")
    assert backed_up.names()[-1] == "before the point"
    assert not backed_up.backup().failed


def test_the_release_that_fits_the_schema_is_chosen(backed_up: BackedUp) -> None:
    """The tiny release reads what it tells from its own workload: here that the schema is older than it needs."""
    ledger = backed_up.state.ledger()
    current = ledger.current()
    assert current is not None
    path = backed_up.state.configurations / f"{current.release}.json"
    text = path.read_text()
    image = Path(backed_up.state.workload(current.release)["image"]) / "bin/tiny"
    program = image.read_text()
    try:
        image.write_text(program.replace('"current": "0009"', '"current": "0001"'))
        plan = backed_up.plan("latest")["plan"]
        assert plan["release"].startswith("a" * 12), "what needs 0002 cannot live with 0001"
        path.write_text(text.replace('"TINY_LIVE_SCHEMA": "0001"', '"TINY_LIVE_SCHEMA": "0009"'))
        assert "with which no recorded release can live" in backed_up.plan("latest").message
        path.write_text(text.replace('"TINY_LIVE_SCHEMA": "0001"', '"TINY_OTHER": "0009"'))
        assert "the schema of 'latest' cannot be read" in backed_up.plan("latest").message
    finally:
        image.write_text(program)
        path.write_text(text)
        backed_up.run("local_restore", state="absent")


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("", "titanic_restore_to: it names no moment"),
        ("2026-01-01T00:00:00", "has no time zone"),
        ("2020-01-01T00:00:00Z", "'2020-01-01T00:00:00Z' cannot be reached, the first backup ended at"),
        ("2096-01-01T00:00:00Z", "'2096-01-01T00:00:00Z' is yet to come"),
        ("release zzz", "release 'zzz' is not in the ledger"),
        ("release aaaa", "has no restore point, since backups were off"),
        ("nowhere", r"there is no restore point 'nowhere' (restore points: before-c, import)"),
    ],
)
def test_a_moment_that_cannot_be_is_refused(backed_up: BackedUp, kept: list[str], to: str, why: str) -> None:
    for check in (True, False):
        refused = backed_up.plan(to, check=check)
        assert "restore refused, nothing was touched" in refused.message
        assert why in refused.message


def test_a_time_after_the_last_wal_is_refused(backed_up: BackedUp, kept: list[str]) -> None:
    """With a database that runs there is always WAL up to now; without one the recovery finds its end."""
    moment = datetime.now(UTC)
    time.sleep(0.05)
    backed_up.server.stop()
    try:
        refused = backed_up.plan(stamp(moment + timedelta(milliseconds=20)))
        assert "is after the last WAL in" in refused.message
    finally:
        backed_up.server.start()


def test_a_disk_that_is_too_small_is_refused(backed_up: BackedUp, kept: list[str]) -> None:
    label = max(backed_up.repository.backups())
    facts = backed_up.repository.run("read", f"backups/{label}/backup.json")
    huge = facts.replace(b'"bytes": ', b'"bytes": 9999999999')
    backed_up.repository.run("write", f"backups/{label}/backup.json", text=huge)
    try:
        assert "a restore needs " in backed_up.plan("latest").message
        assert "MiB are free on the disk of" in backed_up.plan("latest", check=True).message
    finally:
        backed_up.repository.run("write", f"backups/{label}/backup.json", text=facts)


def test_another_step_at_work_is_waited_for(backed_up: BackedUp) -> None:
    """The deploy lock keeps other runs out (test_host_lock); a step that outlived its run is kept out here."""
    with backed_up.state.exclusively():
        from ansible_collections.whitestar.deploy.tests.helpers import finish_module, start_module

        options = {"state_directory": str(backed_up.state.root), "kind": "full", "by": "alice@laptop"}
        process = start_module("local_backup", options)
        time.sleep(1)
        assert process.poll() is None
    assert not finish_module(process).failed


def test_the_volume_of_the_database_is_lost(backed_up: BackedUp) -> None:
    """Nothing that was acknowledged before the last archived file of WAL is missing."""
    for number in range(20):
        backed_up.write(f"archived {number}")
    archive_now(backed_up.server)
    backed_up.write("not archived")
    backed_up.server.run_sql("SELECT pg_sleep(0)")
    replaced = kept_data(backed_up.state)
    kill(backed_up)
    shutil.rmtree(backed_up.server.data)
    assert "is not here, and a new one would be made in its place. Bring it back" in backed_up.prepare().message
    planned = backed_up.plan("latest")
    assert not planned.failed, planned.message
    assert planned["plan"]["lost_rows"] == "unknown"
    assert planned["plan"]["not_archived"].startswith("the database does not run")
    assert not backed_up.switch().failed
    assert backed_up.names()[-20:] == [f"archived {number}" for number in range(20)]
    assert kept_data(backed_up.state) == replaced, "there was nothing to keep"
    assert not backed_up.backup().failed


def kill(site: BackedUp) -> None:
    """End the server as a crash would."""
    site.server.run_program(["pg_ctl", "stop", "--mode", "immediate", "--pgdata", str(site.server.data)])


def test_an_empty_machine(backed_up: BackedUp, bindir: Path, backup_tools: Path, place: Path) -> None:
    """From the repository and the key alone: another database, which says so, and takes it over when it is told to."""
    rows = backed_up.names()
    archive_now(backed_up.server)
    backed_up.server.stop()
    other = BackedUp(place, bindir, backup_tools)
    shutil.copyfile(backed_up.state.root / "secrets/backup_key", other.state.root / "secrets/backup_key")
    other.root = backed_up.root
    try:
        assert "has the backups of a database" in other.prepare().message
        assert not (done := other.prepare_to_restore()).failed, done.message
        own = {"directory": str(other.state.database), "bindir": str(bindir), "account": "nobody"}
        assert not run_module("local_database", {**own, **other.accounts(), "settings": QUICK}).failed
        assert "nothing has been deployed here yet" in other.plan("latest").message
        other.deploy()
        system = other.repository.record()["system"]
        refused = other.plan("latest")
        assert f"take that database over (--tags restore -e titanic_restore_system={system})" in refused.message
        assert "holds another database" in other.run("local_backup", state="first").message
        other.restore("latest", system=system)
        assert other.names() == rows
        assert other.server.system() == system
        assert not (done := other.backup()).failed, done.message
    finally:
        other.end()
        backed_up.server.start()


def test_two_paths_change_places(place: Path) -> None:
    for name in ("a", "b"):
        (place / name).mkdir()
        (place / name / name).touch()
    exchange(place / "a", place / "b")
    assert [path.name for path in (place / "a").iterdir()] == ["b"]
    with pytest.raises(OSError, match="No such file"):
        exchange(place / "a", place / "nothing")


def test_a_switch_without_a_plan_is_refused(backed_up: BackedUp, kept: list[str]) -> None:
    done: Result = backed_up.switch()
    assert "nothing was planned" in done.message
