"""What titanic_backup does by the commands that people give: under load, lost and found, with its repository away."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest

from tests.end_to_end.switch.site import HOSTS, PERSON, ComposeSite, HostSite, new_site
from tests.engine import Engine

pytestmark = HOSTS

PEOPLE = 887
# Five minutes at full measure.
AWAY_SECONDS = float(os.environ.get("TESTS_AWAY_SECONDS", "5"))
RESTORE = ("--tags", "restore", "-e")
CONFIRMED = ("-e", "titanic_confirm_restore=here")


class Writer:
    """Writes one person after the other, and knows of each whether and when that was acknowledged."""

    def __init__(self, site: HostSite) -> None:
        self.site, self.number = site, 0
        self.acknowledged: dict[str, tuple[datetime, datetime]] = {}
        self.failed: list[int] = []
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.write)

    def write(self) -> None:
        while not self.done.is_set():
            self.number += 1
            name, began = f"Writer {self.number}", datetime.now(UTC)
            status, _ = self.site.ask("/people", "POST", {**PERSON, "name": name})
            if status == 201:
                self.acknowledged[name] = (began, datetime.now(UTC))
            else:
                self.failed.append(status)
            time.sleep(0.02)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def before(self, moment: datetime) -> set[str]:
        """What was acknowledged before a moment."""
        return {name for name, (_, at) in list(self.acknowledged.items()) if at < moment}

    def after(self, moment: datetime) -> set[str]:
        """What was begun after a moment, and acknowledged."""
        return {name for name, (at, _) in list(self.acknowledged.items()) if at > moment}


@pytest.fixture(scope="module")
def own_site(engine: Engine | None) -> Iterator[HostSite]:
    """A site with backups, on which every option of theirs is set."""
    with new_site(engine) as site:
        assert isinstance(site, HostSite)
        repository = site.state.with_name(f"{site.state.name}-backups")
        site.settings |= {
            "titanic_backup_enabled": True,
            "titanic_backup_repositories": [{"type": "directory", "path": str(repository)}],
            "titanic_backup_site": "here",
            "titanic_backup_rpo_seconds": 12,
            "titanic_backup_compression": "zstd",
            "titanic_backup_schedule": "daily",
            "titanic_backup_full_days": 7,
            "titanic_backup_keep_full": 2,
            "titanic_backup_keep_days": 1,
            "titanic_backup_wal_mebibytes": 512,
            "titanic_drill_max_days": 7,
            "titanic_backup_python": sys.executable,
        }
        site.succeed()
        try:
            yield site
        finally:
            shutil.rmtree(repository, ignore_errors=True)


def eventually(condition: Callable[[], object]) -> None:
    """Return once it holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def deleted(directory: Path) -> bool:
    """Whether nothing is left of a directory, which others may be writing to."""
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def lose_database(site: HostSite) -> None:
    """As the loss of a disk does it."""
    if not isinstance(site, ComposeSite):
        site.kill("database")
        eventually(lambda: deleted(site.state / "database/data"))
        return
    (container,) = site.containers("database")
    volumes = {mount["Destination"]: mount.get("Name", "") for mount in container["Mounts"]}
    for service in ("backup", "database"):
        site.engine("rm", "--force", *(str(found["Id"]) for found in site.containers(service)))
    site.engine("volume", "rm", volumes["/var/lib/postgresql/data"])


def people(site: HostSite) -> set[str]:
    """The names of those whom a Writer wrote."""
    status, found = site.ask("/people")
    assert status == 200, found
    return {person["name"] for person in found if person["name"].startswith("Writer ")}


def test_a_second_run_changes_nothing_and_each_release_has_its_place(own_site: HostSite) -> None:
    migrated = (own_site.state / "answers/migrate.json").stat().st_mtime
    assert own_site.changed(own_site.succeed()) == 0
    (entry,) = own_site.ledger()
    assert entry["point"].startswith("before-")
    events = json.loads((own_site.state / "ledger.json").read_text())["events"]
    (point,) = (event for event in events if event["kind"] == "point")
    assert datetime.fromisoformat(point["at"]).timestamp() < migrated, "before its migration"
    assert entry["backup"].endswith("F" if isinstance(own_site, ComposeSite) else "-full")
    told = own_site.succeed("--tags", "status")
    assert re.search(r"newest: \S+(-full|F), 0\.\d hours ago", told)


@pytest.mark.shown_once
def test_another_run_at_work_keeps_each_of_them_out(own_site: HostSite) -> None:
    lock, ledger, now = own_site.state / "lock.json", own_site.state / "ledger.json", time.time()
    before = ledger.read_bytes()
    owner = {"host": "elsewhere", "user": "captain", "pid": 1, "started": 1}
    lock.write_text(json.dumps({**owner, "since": now, "until": now + 600}))
    try:
        for arguments in (
            ("--tags", "backup"),
            ("--tags", "drill"),
            (*RESTORE, "titanic_restore_to=latest", *CONFIRMED),
        ):
            told = own_site.refuse(*arguments)
            assert "another run holds the deploy lock: captain@elsewhere" in " ".join(told.split())
    finally:
        lock.unlink()
    assert ledger.read_bytes() == before


def test_another_key_is_refused_before_it_takes_the_place_of_the_right_one(own_site: HostSite) -> None:
    (key,) = (own_site.state / "secrets").rglob("backup_key")
    before = key.read_bytes()
    told = own_site.refuse("-e", json.dumps({"titanic_secrets_values": {"backup_key": "k" * 40}}))
    assert "titanic_secrets_values: backup_key is not the one in" in " ".join(told.split())
    assert "k" * 40 not in told
    assert key.read_bytes() == before


def test_under_load_to_a_moment_between_two_acknowledged_writes(own_site: HostSite) -> None:
    """Exactly the writes before it are there; a run that is not confirmed says what that loses and touches nothing."""
    own_site.succeed("--tags", "backup", "-e", "titanic_backup_kind=incremental", "-e", "titanic_backup_name=import")
    with Writer(own_site) as writer:
        eventually(lambda: len(writer.acknowledged) >= 50)
        moment = datetime.now(UTC)
        eventually(lambda: len(writer.after(moment)) >= 20)
        where = f"titanic_restore_to={moment.isoformat(timespec='milliseconds')}"
        refused = own_site.refuse(*RESTORE, where)
        assert "add -e titanic_confirm_restore=here" in " ".join(refused.split())
        assert int(re.findall(r"lost_rows: (\d+)", refused)[0]) >= 20
        assert writer.failed == [], "nobody was held up by a plan"
        own_site.succeed(*RESTORE, where, *CONFIRMED)
        over = datetime.now(UTC)
        eventually(lambda: writer.after(over))
    found = people(own_site)
    before = writer.before(moment)
    assert before <= found, "a write that was acknowledged before the moment is missing"
    # One that was under way at the moment may be there; what follows is of after the restore.
    later = found - before - {name for name, (began, at) in writer.acknowledged.items() if began <= moment <= at}
    assert later, "it serves again"
    numbers = {int(name.split()[1]) for name in later}
    lost = {int(name.split()[1]) for name in writer.after(moment)} - numbers
    assert lost, "something was lost, as was asked for"
    assert max(lost) < min(numbers), "what was written after the moment and before the restore is not there"


def test_the_volume_is_deleted_under_load_and_nothing_archived_is_missing(own_site: HostSite) -> None:
    with Writer(own_site) as writer:
        eventually(lambda: len(writer.acknowledged) >= 50)
        archived = datetime.now(UTC)
        name = own_site.administer("SELECT pg_walfile_name(pg_switch_wal())").strip()
        eventually(lambda: own_site.administer("SELECT last_archived_wal FROM pg_stat_archiver").strip() >= name)
        eventually(lambda: len(writer.after(archived)) >= 20)
        gone = datetime.now(UTC)
        lose_database(own_site)
    own_site.succeed(*RESTORE, "titanic_restore_to=latest", *CONFIRMED)
    found = people(own_site)
    missing = writer.before(archived) - found
    assert missing == set()
    lost = [at for name, (_, at) in writer.acknowledged.items() if name not in found]
    assert all((gone - at).total_seconds() < own_site.settings["titanic_backup_rpo_seconds"] for at in lost)


def test_the_repository_is_away_and_comes_back_whole(own_site: HostSite) -> None:
    place = Path(own_site.settings["titanic_backup_repositories"][0]["path"])
    away = place.with_name(f"{place.name}-away")
    with Writer(own_site) as writer:
        place.rename(away)
        try:
            time.sleep(AWAY_SECONDS)
            own_site.administer("SELECT pg_switch_wal()")
            time.sleep(0.5)
        finally:
            away.rename(place)
    assert writer.failed == []
    told = own_site.succeed("--tags", "drill")
    assert re.search(r"rpo_seconds: [\d.]+", told)
    assert "drill: succeeded" in own_site.succeed("--tags", "status")
    refused = own_site.refuse(*RESTORE, "titanic_restore_to=2020-01-01T00:00:00Z")
    assert "the first backup ended at" in " ".join(refused.split())
