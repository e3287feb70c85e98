# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of a Compose target on a real engine: what is made is restored, and what is damaged is told."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.backups import warnings
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.containers import Containers
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.drill import Drill
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.restore import kept_volumes
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import ComposeRuntime
from ansible_collections.whitestar.deploy.tests.compose_backup_helpers import KEY, PLANTED, ContainerBackedUp


def test_the_first_backup_is_made_once(backed_up: ContainerBackedUp) -> None:
    for check in (True, False):
        again = backed_up.run("compose_backup", state="first", check=check)
        assert (again.changed, again["steps"]) == (False, [])
        assert not (again := backed_up.prepare(check=check)).changed, again["steps"]
    newest = backed_up.backups.scheduled()
    assert newest is not None
    assert (newest.kind, newest.major) == ("full", 17)
    assert warnings(backed_up.engine, backed_up.state) == []
    told = Containers(backed_up.state, {"engine": backed_up.options}).backups()
    assert told["newest"].endswith("F, 0.0 hours ago")
    assert "nothing waits" in told["archive"]
    assert told["drill"] == "none"


def test_nothing_is_in_clear_and_the_key_is_nowhere(backed_up: ContainerBackedUp) -> None:
    backed_up.backups.archive_now()
    files = [path.read_bytes() for path in backed_up.root.rglob("*") if path.is_file()]
    assert files
    assert not any(PLANTED.encode() in content or KEY.encode() in content for content in files)
    for container in backed_up.engine.containers():
        assert KEY not in str(container)
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert KEY.encode() not in line.read_bytes()
        except OSError:
            continue
    assert KEY not in (backed_up.state.root / "ledger.json").read_text()


def test_a_backup_now_and_a_name(backed_up: ContainerBackedUp) -> None:
    check = backed_up.backup(check=True)
    assert check.changed
    done = backed_up.backup("incremental", name="import")
    assert not done.failed, done.message
    assert done["backup"]["kind"] == "incremental"
    assert backed_up.state.ledger().last_event("point", name="import", named=True)
    assert "'a b' is no name" in backed_up.backup(name="a b").message


def test_to_a_moment_between_two_writes_and_back(backed_up: ContainerBackedUp) -> None:
    backed_up.write("before")
    time.sleep(0.05)
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    time.sleep(0.05)
    backed_up.write("after")
    check = backed_up.plan(moment, check=True)
    assert (check.changed, check.failed) == (False, False), check.message
    planned = backed_up.plan(moment)
    assert not planned.failed, planned.message
    assert planned["plan"]["lost_rows"] == 1
    assert planned["plan"]["rows"]["public.people"]["restored"] == planned["plan"]["rows"]["public.people"]["live"] - 1
    assert "after" in backed_up.names(), "what serves is not touched"
    assert backed_up.run("compose_restore", state="absent").changed
    plan = backed_up.restore(moment)
    assert backed_up.names()[-1] == "before"
    assert plan["kept"] == "database"
    assert not (done := backed_up.backup("full")).failed, done.message
    assert done["backup"]["timeline"] == 2
    project = Project.of(backed_up.state, backed_up.engine)
    assert kept_volumes(project, backed_up.state) == [f"{backed_up.engine.project}_database"]
    backed_up.restore("previous")
    assert backed_up.names()[-1] == "after"
    backed_up.restore("import")
    assert "before" not in backed_up.names()
    backed_up.backup("full")
    assert backed_up.run("compose_restore", state="discarded", check=True).changed
    done = backed_up.run("compose_restore", state="discarded")
    assert len(done["plan"]["discarded"]) == 2
    assert kept_volumes(project, backed_up.state) == []
    assert "no data of before a restore are kept" in backed_up.plan("previous").message


def test_what_a_killed_restore_left_is_taken_away(backed_up: ContainerBackedUp) -> None:
    """One was killed while it unpacked, and one while WAL was replayed: containers are at work on their volumes."""
    engine, place = backed_up.engine, backed_up.state.root / "restore"
    place.mkdir()
    (place / "volume").write_text("database-killed")
    for name, volume in (("once-killed", "database-killed"), ("restore", "database-before")):
        mount = f"{engine.project}_{volume}:/var/lib/postgresql/data"
        words = ["--name", f"{engine.project}-{name}", "--volume", mount, backed_up.image, "sleep", "600"]
        engine.run("run", "--detach", "--pull", "never", *words)
    planned = backed_up.plan("latest")
    assert not planned.failed, planned.message
    assert engine.get(f"/containers/{engine.project}-once-killed/json") is None
    assert engine.get(f"/volumes/{engine.project}_database-killed") is None
    assert backed_up.run("compose_restore", state="absent").changed
    assert engine.get(f"/containers/{engine.project}-restore/json") is None
    engine.run("volume", "rm", f"{engine.project}_database-before")


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("2020-01-01T00:00:00Z", "the first backup ended at"),
        ("2999-01-01T00:00:00Z", "is yet to come"),
        ("nowhere", "there is no restore point 'nowhere'"),
        ("release zzz", "is not in the ledger"),
    ],
)
def test_a_moment_that_cannot_be_is_refused(backed_up: ContainerBackedUp, to: str, why: str) -> None:
    for check in (True, False):
        refused = backed_up.plan(to, check=check)
        assert why in refused.message
    assert not (backed_up.state.root / "restore").exists()


def test_each_release_marks_its_place(backed_up: ContainerBackedUp) -> None:
    point = ComposeRuntime(backed_up.engine, backed_up.state).restore_point()
    assert point["name"].startswith("before-")
    assert point["lsn"]


def test_a_drill_proves_that_it_restores(backed_up: ContainerBackedUp) -> None:
    assert not backed_up.run("compose_drill", check=True, database="people", by="alice@laptop").changed
    Drill(backed_up.backups, "people", {}).verify()
    done = backed_up.drill()
    assert not done.failed, done.message
    assert done["drill"]["tables"]["public.people"] == str(len(backed_up.names()))
    event = backed_up.state.ledger().last_event("drill")
    assert event is not None
    assert event["outcome"] == "succeeded"
    assert backed_up.engine.get(f"/volumes/{backed_up.engine.project}_drill") is None


@pytest.fixture
def copy(backed_up: ContainerBackedUp) -> Iterator[Path]:
    """The repository, to be damaged: a copy of it is put back afterwards."""
    backed_up.backups.archive_now()
    kept = backed_up.root.with_name("kept")
    backed_up.engine.run("run", "--rm", "--volume", f"{backed_up.place}:/place", backed_up.image, "true")
    shutil.copytree(backed_up.root, kept, symlinks=True)
    yield backed_up.root
    for path in sorted(kept.rglob("*")):
        here = backed_up.root / path.relative_to(kept)
        if path.is_file() and not path.is_symlink() and (not here.exists() or here.read_bytes() != path.read_bytes()):
            here.write_bytes(path.read_bytes())
            shutil.chown(here, 999, 999)
    shutil.rmtree(kept)


def newest(root: Path, pattern: str) -> Path:
    return max(root.glob(pattern), key=lambda path: path.stat().st_mtime)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", ["bit", "cut", "wal", "gap", "manifest", "missing"])
def test_what_is_damaged_is_found(backed_up: ContainerBackedUp, copy: Path, damage: str) -> None:
    bundle = newest(copy, "backup/here/*F/bundle/*")
    wal = newest(copy, "archive/here/17-1/*/*-*")
    if damage == "bit":
        flip(bundle)
    elif damage == "cut":
        bundle.write_bytes(bundle.read_bytes()[:-100])
    elif damage == "wal":
        flip(wal)
    elif damage == "gap":
        wal.unlink()
    elif damage == "manifest":
        flip(bundle.parents[1] / "backup.manifest")
        flip(bundle.parents[1] / "backup.manifest.copy")
    else:
        bundle.unlink()
    told = backed_up.drill()
    assert told.failed
    assert "the drill failed, what serves was not touched" in told.message
    event = backed_up.state.ledger().last_event("drill")
    assert event is not None
    assert event["outcome"] == "failed"


def test_another_key_is_refused_before_anything_is_written(backed_up: ContainerBackedUp) -> None:
    before = (backed_up.state.backup / "settings.json").read_bytes()
    for key, why in (("x" * 40, "backup_key is not the key"), ("short", "32 are needed")):
        backed_up.secret("backup_key", key)
        try:
            refused = backed_up.prepare(keep_full=3)
        finally:
            backed_up.secret("backup_key", KEY)
        assert refused.message.startswith("no backup was made: ")
        assert why in refused.message
    assert (backed_up.state.backup / "settings.json").read_bytes() == before


@pytest.mark.parametrize("where", ["inside", "taken"])
def test_a_directory_that_will_not_do_is_refused(backed_up: ContainerBackedUp, where: str) -> None:
    place = backed_up.state.root / "here" if where == "inside" else backed_up.place / "taken"
    if where == "taken":
        place.mkdir(exist_ok=True)
        (place / "somebody").touch()
    refused = backed_up.prepare(repositories=[{"type": "directory", "path": str(place)}])
    assert ("is inside the state directory" if where == "inside" else "holds what no backup made") in refused.message


def test_a_server_stops_although_the_repository_is_away(backed_up: ContainerBackedUp) -> None:
    """And what waited is archived once it is back."""
    away = backed_up.root.with_name("away")
    (backed_up.root / "archive").rename(away)
    try:
        backed_up.write("while it is away")
        backed_up.server.run_sql("SELECT pg_switch_wal()")
        began = time.monotonic()
        backed_up.engine.run("stop", "--time", "60", backed_up.backups.container("database"))
        assert time.monotonic() - began < 40
    finally:
        away.rename(backed_up.root / "archive")
    backed_up.database()
    backed_up.backups.archive_now()
    assert "while it is away" in backed_up.names()
