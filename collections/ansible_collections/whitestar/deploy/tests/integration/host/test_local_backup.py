# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups hold everything in no clear byte, WAL reaches them all the time, and no repository holds the service up."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local import base_backup
from ansible_collections.whitestar.deploy.plugins.module_utils.local.backup_status import told_of, warnings
from ansible_collections.whitestar.deploy.plugins.module_utils.local.base_backup import archive_now
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.archiving import EXPOSED
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import BackupError, missing_segments
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS
from ansible_collections.whitestar.deploy.tests.backup_helpers import PLANTED, QUICK, BackedUp
from ansible_collections.whitestar.deploy.tests.helpers import ACCOUNT, Result, make_workload, run_module, wait_for


def test_the_first_backup_is_made_once(backed_up: BackedUp) -> None:
    (label,) = backed_up.repository.backups()
    assert label.endswith("-full")
    again = backed_up.run("local_backup", state="first")
    assert (again.changed, again["steps"]) == (False, [])
    assert not backed_up.prepare().changed
    assert backed_up.run("local_backup", state="present", check=True)["steps"] == ["make a backup"]
    assert list(backed_up.repository.backups()) == [label], "a check makes none"


def test_nothing_is_in_clear_and_nobody_else_reads_it(backed_up: BackedUp) -> None:
    archive_now(backed_up.server)
    assert Repository.of(State(backed_up.place / "elsewhere")) is None, "where backups are off there is none"
    key = (backed_up.state.root / "secrets/backup_key").read_bytes().strip()
    files = [path for path in backed_up.root.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        text = path.read_bytes()
        assert PLANTED.encode() not in text, path
        assert key not in text, path
        assert path.stat().st_mode & 0o077 == 0, path
    assert key.decode() not in (backed_up.state.backup / "settings.json").read_text()
    assert key.decode() not in backed_up.server.run_sql("SHOW archive_command")


def test_an_incremental_backup_holds_what_has_changed(backed_up: BackedUp) -> None:
    backed_up.write("incremental")
    done = backed_up.backup()
    assert done.changed
    full, incremental = backed_up.repository.backups().values()
    assert (incremental.kind, incremental.prior) == ("incremental", full.label)
    assert incremental.bytes < full.bytes / 3
    assert done["backup"]["label"] == incremental.label
    event = backed_up.state.ledger().last_event("backup")
    assert event is not None
    assert event["label"] == incremental.label


def test_status_tells_how_backups_stand(backed_up: BackedUp) -> None:
    backed_up.write("in no repository yet")
    exposed: Any = backed_up.server.query(EXPOSED)
    assert float(exposed["seconds"]) > 0
    archive_now(backed_up.server)
    told = told_of(backed_up.state)
    assert told["newest"].startswith(max(backed_up.repository.backups()))
    assert told["archive"] == "writes of the last 0 s are in no repository; nothing waits"
    assert told["drill"] == "none"
    assert "overdue" not in told
    assert warnings(backed_up.state) == []


def test_what_nothing_keeps_goes_with_its_wal(backed_up: BackedUp) -> None:
    backed_up.prepare(keep_full=1, keep_days=0)
    before = set(backed_up.repository.backups())
    oldest = min(backed_up.repository.wal())
    done = backed_up.backup("full")
    assert [step for step in done["steps"] if step.startswith("remove")] == [
        f"remove backup {label}" for label in sorted(before, reverse=True)
    ]
    (backup,) = backed_up.repository.backups().values()
    assert oldest not in backed_up.repository.wal()
    assert missing_segments(backed_up.repository.wal(), backup) == []
    backed_up.prepare()


def test_a_backup_that_is_cut_off_leaves_nothing_that_counts(backed_up: BackedUp) -> None:
    place = backed_up.root / "backups/.20200101T000000Z-full"
    place.mkdir()
    (place / "base.tar").write_bytes(b"half")
    shutil.chown(place, *(backed_up.server.owner or (place.stat().st_uid, place.stat().st_gid)))
    before = list(backed_up.repository.backups())
    assert not backed_up.backup().failed
    assert not place.exists()
    assert list(backed_up.repository.backups())[:-1] == before


@pytest.fixture
def away(backed_up: BackedUp) -> Path:
    """The repository is not where it should be."""
    place = backed_up.root.with_name("away")
    backed_up.root.rename(place)
    return place


def test_writes_go_on_while_the_repository_is_away_and_the_archive_catches_up(backed_up: BackedUp, away: Path) -> None:
    for number in range(3):
        backed_up.write(f"while away {number}")
        backed_up.server.run_sql("SELECT pg_switch_wal()")
    wait_for(lambda: backed_up.server.query("SELECT failed_count FROM pg_stat_archiver"))
    assert "is away" in told_of(backed_up.state)["archive"]
    assert "is away or is none of ours" in backed_up.backup().message
    (line,) = warnings(backed_up.state)
    assert line.startswith("WAL is not archived and no backup is made: titanic_backup_repositories: ")
    assert not backed_up.run("local_backup", state="first").failed, "a release does not wait for it"
    began = time.monotonic()
    backed_up.server.stop()
    assert time.monotonic() - began < 10, "a server that is told to stop does not wait for a repository"
    assert not backed_up.database().failed
    assert [name for name in backed_up.names() if name.startswith("while away")] == [
        f"while away {n}" for n in range(3)
    ]
    away.rename(backed_up.root)
    archive_now(backed_up.server)
    newest = max(backed_up.repository.backups().values(), key=lambda each: each.label)
    assert missing_segments(backed_up.repository.wal(), newest) == [], "no gap is left"
    assert warnings(backed_up.state) == []


def test_a_server_stops_although_the_repository_never_answers(backed_up: BackedUp) -> None:
    """As a mount of a machine that is gone: whoever reads there waits for ever."""
    record = backed_up.root / "repository.json"
    kept = record.rename(record.with_name(".kept"))
    os.mkfifo(record, 0o644)
    try:
        backed_up.write("never archived")
        backed_up.server.run_sql("SELECT pg_switch_wal()")
        began = time.monotonic()
        backed_up.server.stop()
        assert time.monotonic() - began < 20
    finally:
        record.unlink()
        kept.rename(record)
    backed_up.server.start()
    archive_now(backed_up.server)
    newest = max(backed_up.repository.backups().values(), key=lambda each: each.label)
    assert missing_segments(backed_up.repository.wal(), newest) == []


def test_a_backup_whose_wal_cannot_be_archived_is_given_up(
    backed_up: BackedUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_backup, "WAL_SECONDS", 4)
    monkeypatch.setattr(base_backup, "LOOK_SECONDS", 2)
    backups = set(backed_up.repository.backups())
    backed_up.server.run_sql("ALTER SYSTEM SET archive_command = 'false'")
    backed_up.server.run_sql("SELECT pg_reload_conf()")
    try:
        with pytest.raises(BackupError, match=r"the WAL of backup \S+-full was not archived within 4 s"):
            base_backup.make(backed_up.repository, "full")
    finally:
        backed_up.server.run_sql("ALTER SYSTEM RESET archive_command")
        backed_up.server.run_sql("SELECT pg_reload_conf()")
    assert set(backed_up.repository.backups()) == backups
    assert not backed_up.backup().failed


def test_wal_is_given_up_before_the_service_is_and_the_next_backup_heals_it(backed_up: BackedUp, away: Path) -> None:
    backed_up.prepare(wal_mebibytes=32)
    given_up = backed_up.repository.given_up
    for number in range(4):
        backed_up.write(f"too much {number}")
        backed_up.server.run_sql("SELECT pg_switch_wal()")
    wait_for(given_up, seconds=90)
    wait_for(lambda: backed_up.server.query("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name ~ 'ready'") <= 2)  # type: ignore[operator]
    away_line, line = warnings(backed_up.state)
    assert "is away" in away_line
    assert "files of WAL were given up while the repository was away" in line
    away.rename(backed_up.root)
    archive_now(backed_up.server)
    assert f"WAL {given_up()[0]} was given up while the repository was away" in backed_up.plan("latest").message
    assert "was given up" in backed_up.drill().message
    assert not backed_up.backup().failed
    assert warnings(backed_up.state) == []
    assert not backed_up.drill().failed
    backed_up.prepare()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"site": "there"}, "is the repository of the site 'here', and this one is 'there'"),
        ({"major": 17}, "titanic_database_local_bindir: the backups in .* are PostgreSQL 17's, the programs are 18"),
        ({"system": "7"}, r"holds another database \(system 7, this one is \d+\)"),
        ({"format": 2}, "has format 2, this collection reads 1"),
        ({"key_check": "0" * 32}, "titanic_secrets_values: backup_key is not the key that .* was made with"),
    ],
)
def test_a_repository_that_is_not_ours_is_refused_by_name(
    backed_up: BackedUp, change: dict[str, object], why: str
) -> None:
    path = backed_up.root / "repository.json"
    kept = path.read_bytes()
    if "site" in change:
        assert re.search(why, backed_up.prepare(site="there").message)
        return
    path.write_text(json.dumps(json.loads(kept) | change))
    try:
        for done in (backed_up.backup(), backed_up.plan("latest"), backed_up.drill()):
            assert re.search(why, done.message), done.message
    finally:
        path.write_bytes(kept)
    assert not (backed_up.state.root / "restore").exists()
    assert not (backed_up.state.root / "drill").exists()


def test_what_no_backup_made_is_left_alone(backed_up: BackedUp) -> None:
    place = backed_up.place / "others"
    place.mkdir()
    (place / "diary.txt").write_text("private")
    backed_up.prepare(repository=str(place))
    done = backed_up.run("local_backup", state="first")
    assert "holds what no backup made (diary.txt): empty it" in done.message
    assert [path.name for path in place.iterdir()] == ["diary.txt"]
    inside = backed_up.prepare(repository=str(backed_up.state.root / "b"))
    assert "is inside the state directory, and would be lost with it" in inside.message
    backed_up.prepare()


def test_a_place_that_cannot_be_written_to_is_refused(backed_up: BackedUp) -> None:
    file = backed_up.place / "file"
    file.write_text("")
    done = backed_up.prepare(repository=str(file / "backups"))
    assert f"titanic_backup_repositories: {file} cannot be written to: grant that right" in done.message
    closed = backed_up.place / "closed"
    closed.mkdir(mode=0o700)
    if backed_up.repository.owner:
        done = backed_up.prepare(repository=str(closed / "backups"))
        assert f"'{ACCOUNT}' archives WAL and cannot enter {closed}: open it to others" in done.message
    wal = backed_up.root / "wal"
    wal.chmod(0o500)
    try:
        for done in (backed_up.backup(), backed_up.plan("latest"), backed_up.drill()):
            assert f"titanic_backup_repositories: {wal} cannot be written to: grant that right" in done.message
        assert not backed_up.prepare().failed, "a release does not wait for that"
        (line,) = warnings(backed_up.state)
        assert "WAL is not archived and no backup is made: " in line
    finally:
        wal.chmod(0o700)


def test_a_short_key_is_refused(backed_up: BackedUp) -> None:
    key = backed_up.place / "short"
    key.write_text("hunter2")
    done = backed_up.prepare(key_file=str(key))
    assert "titanic_secrets_values: backup_key has 7 characters, 32 are needed" in done.message
    assert "hunter2" not in done.message


def release(site: BackedUp, identity: str) -> Result:
    """Deploy a tiny release."""
    workload = make_workload(site.state, identity * 12, required="0002", TINY_LIVE_SCHEMA="0001")
    return site.run("host_release", workload=workload, why="deploy", ready_seconds=60, drain_seconds=5)


@pytest.fixture
def released(backed_up: BackedUp) -> Iterator[BackedUp]:
    """Where releases are deployed; none of them is left running."""
    yield backed_up
    for colour in COLOURS:
        backed_up.state.daemon(colour).stop(1)


def test_each_release_marks_its_place(released: BackedUp) -> None:
    """Before its migration, where there is one: only a migration that has something to do is marked."""
    state, open_to_all = released.state, released.place / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    workload = make_workload(state, "d" * 12)
    given = {
        "image": workload["image"],
        "command": ["tiny", "migrate"],
        "check_argument": "--check",
        "environment": {"TINY_DONE": str(open_to_all / "done")},
        "failure": {"state_directory": str(state.root), "by": "alice@laptop"},
        "marks": True,
    }
    assert run_module("host_command", given, check=True).changed
    assert state.ledger().last_event("point") is None
    assert run_module("host_command", given).changed
    point = state.ledger().last_event("point")
    assert point is not None
    assert not run_module("host_command", given).changed
    assert state.ledger().last_event("point") == point
    entry = release(released, "d")["entry"]
    assert (entry["point"], entry["backup"]) == (point["name"], max(released.repository.backups()))
    without_a_migration = release(released, "e")["entry"]
    assert without_a_migration["point"] not in ("", point["name"])
    assert not release(released, "e").changed
    assert len([event for event in state.ledger().events if event["kind"] == "point"]) == 2


def test_a_release_that_cannot_be_marked_is_not_deployed(released: BackedUp) -> None:
    before = released.state.ledger()
    released.server.stop()
    try:
        refused = release(released, "f")
        assert "no restore point could be made for it, and so it is not deployed" in refused.message
    finally:
        released.server.start()
    assert released.state.ledger() == before


def test_backups_that_are_turned_off_are_off(backed_up: BackedUp) -> None:
    own = {"directory": str(backed_up.state.database), "bindir": str(backed_up.server.bindir), "account": ACCOUNT}
    off = {"backup_settings_file": str(backed_up.state.backup / "settings.json"), "settings": QUICK}
    told = run_module("local_database", {**own, **backed_up.accounts(), **off}, check=True)
    assert "turn backups off" in told["steps"]
    assert told_of(backed_up.state)["newest"] != "off"
    done = run_module("local_database", {**own, **backed_up.accounts(), **off})
    assert "turn backups off" in done["steps"]
    assert backed_up.server.run_sql("SHOW archive_mode") == "off"
    assert told_of(backed_up.state) == {"newest": "off"}
    assert warnings(backed_up.state) == []
    assert "titanic_backup_enabled: backups are off here" in backed_up.backup().message
    assert not run_module("local_database", {**own, **backed_up.accounts(), **off}).changed
