# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill proves a backup by what it restores to, finds every damage, and touches nothing that serves."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.host import drill
from ansible_collections.whitestar.deploy.plugins.module_utils.local.backup_status import told_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.base_backup import archive_now, make
from ansible_collections.whitestar.deploy.plugins.module_utils.local.drill import Drill
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import BackupError, segment_name
from ansible_collections.whitestar.deploy.tests.backup_helpers import PLANTED, QUICK, BackedUp


def test_a_drill_is_good_while_others_write(backed_up: BackedUp) -> None:
    backed_up.write("incremental")
    assert not backed_up.backup().failed
    stop = threading.Event()
    failed: list[str] = []

    def write() -> None:
        while not stop.is_set():
            try:
                backed_up.write("under load")
            except Exception as error:  # noqa: BLE001 (whatever it is, it is counted)
                failed.append(str(error))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = backed_up.drill()
    finally:
        stop.set()
        writer.join()
    assert not done.failed, done.message
    assert failed == []
    found = done["drill"]
    assert found["backup"].endswith("-incremental")
    assert set(found["tables"]) == {"public.people", 'public."Odd \'name"'}
    assert found["tables"]['public."Odd \'name"'] == "20000"
    assert int(found["tables"]["public.people"]) > 2, "up to the newest WAL"
    assert 0 <= found["rpo_seconds"] <= 60
    assert 0 < found["rto_seconds"] < 120
    event = backed_up.state.ledger().last_event("drill")
    assert event is not None
    assert (event["outcome"], event["lsn"]) == ("succeeded", found["lsn"])
    assert told_of(backed_up.state)["drill"] == "succeeded 0.0 hours ago"
    assert not (backed_up.state.root / "drill").exists(), "nothing is left of it"


def test_a_backup_as_they_were_made_at_first_is_built_on(backed_up: BackedUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed by one thread, and with SHA-256 of each file in its manifest."""
    program = backed_up.state.backup / "archive.py"
    kept, connection = program.read_text(), PostgresServer.connection
    assert "\nTHREADS = 2\n" in kept
    program.write_text(kept.replace("\nTHREADS = 2\n", "\nTHREADS = 0\n"))
    with monkeypatch.context() as earlier:
        earlier.setattr(PostgresServer, "connection", lambda self: [*connection(self), "--manifest-checksums=SHA256"])
        old = make(backed_up.repository, "full").label
    program.write_text(kept)
    manifest = backed_up.repository.run("read", f"backups/{old}/backup_manifest")
    assert b'"Checksum-Algorithm": "SHA256"' in manifest
    backed_up.write("since")
    done = backed_up.backup("incremental")
    assert done["backup"]["prior"] == old
    assert b'"CRC32C"' in backed_up.repository.run("read", f"backups/{done['backup']['label']}/backup_manifest")
    drilled = backed_up.drill()
    assert not drilled.failed, drilled.message
    assert drilled["drill"]["backup"] == done["backup"]["label"]


def test_a_check_restores_nothing(backed_up: BackedUp) -> None:
    done = backed_up.run("local_drill", check=True, database="people")
    assert (done.changed, done["drill"]) == (False, {})


@pytest.mark.parametrize(("what", "named"), [("public.people", r"public\.people"), ("constraints", "constraints")])
def test_what_differs_fails_it(backed_up: BackedUp, monkeypatch: pytest.MonkeyPatch, what: str, named: str) -> None:
    real = drill._digests

    def other(server: drill.StreamingServer, database: str, tables: list[str], point: str = "") -> dict[str, str]:
        found = real(server, database, tables, point)
        return found | ({} if point else {what: "1 abc"})

    monkeypatch.setattr(drill, "_digests", other)
    with pytest.raises(BackupError, match=rf"not what the live database had: {named}: \d+ rows with SHA-256 .* 1 rows"):
        Drill(backed_up.repository, "people", QUICK).run()
    assert not (backed_up.state.root / "drill").exists()


def test_a_table_that_somebody_has_is_not_waited_for_by_writers(
    backed_up: BackedUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible_collections.whitestar.deploy.plugins.module_utils.host.drill.LOCK_TRIES", 2)
    holder = threading.Thread(
        target=lambda: backed_up.server.run_sql(
            "BEGIN; INSERT INTO people (name) VALUES ('held'); SELECT pg_sleep(3); COMMIT", "people"
        )
    )
    holder.start()
    time.sleep(0.5)
    began = time.monotonic()
    with pytest.raises(BackupError, match="could not be locked for a moment"):
        drill.live_digests(backed_up.server, "people")
    assert time.monotonic() - began < 2
    holder.join()


@pytest.fixture
def copy(backed_up: BackedUp) -> Iterator[Path]:
    """The repository, to be damaged: a copy takes its place."""
    archive_now(backed_up.server)
    original = backed_up.root.with_name("original")
    backed_up.root.rename(original)
    # With owners, which copytree leaves out.
    shutil.copytree(original, backed_up.root)
    if owner := backed_up.server.owner:
        for path in (backed_up.root, *backed_up.root.rglob("*")):
            shutil.chown(path, *owner)
    yield backed_up.root
    for path in backed_up.root.glob("wal/[0-9A-F]*"):
        # What was archived meanwhile.
        if not (original / "wal" / path.name).exists():
            path.rename(original / "wal" / path.name)
    shutil.rmtree(backed_up.root)
    original.rename(backed_up.root)


def flip(path: Path) -> None:
    """Turn one bit over, in the middle."""
    text = bytearray(path.read_bytes())
    text[len(text) // 2] ^= 1
    path.write_bytes(text)


def newest(site: BackedUp) -> str:
    return max(site.repository.backups())


def needed(site: BackedUp) -> Path:
    """A file of WAL that a restore of the newest backup reads."""
    backup = site.repository.backups()[newest(site)]
    return site.root / "wal" / segment_name(backup.timeline, backup.start_lsn, backup.segment_bytes)


def truncated(site: BackedUp) -> str:
    path = site.root / "backups" / newest(site) / "base.tar"
    path.write_bytes(path.read_bytes()[:-100])
    return f"backups/{newest(site)}/base.tar it was cut off or damaged"


def bit_in_data(site: BackedUp) -> str:
    flip(site.root / "backups" / min(site.repository.backups()) / "base.tar")
    return f"backups/{min(site.repository.backups())}/base.tar frame "


def bit_in_wal(site: BackedUp) -> str:
    flip(needed(site))
    return f"wal/{needed(site).name} frame "


def bit_in_manifest(site: BackedUp) -> str:
    flip(site.root / "backups" / newest(site) / "backup_manifest")
    return f"backups/{newest(site)}/backup_manifest frame 0 is damaged, or the key is another"


def wal_gap(site: BackedUp) -> str:
    path = needed(site)
    path.unlink()
    return f"WAL {path.name} is missing"


def wrong_key(site: BackedUp) -> str:
    return "titanic_secrets_values: backup_key is not the key that"


def wrong_version(site: BackedUp) -> str:
    path = site.root / "repository.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"major": 17}))
    return "are PostgreSQL 17's"


def empty_repository(site: BackedUp) -> str:
    for path in site.root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return "is empty (repository.json is missing)"


def missing_file(site: BackedUp) -> str:
    (site.root / "backups" / newest(site) / "base.tar").unlink()
    return f"backups/{newest(site)}/base.tar is missing"


DAMAGES = [
    truncated,
    bit_in_data,
    bit_in_wal,
    bit_in_manifest,
    wal_gap,
    wrong_key,
    wrong_version,
    empty_repository,
    missing_file,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damage_is_found_and_named(backed_up: BackedUp, copy: Path, damage: object) -> None:
    assert callable(damage)
    key = backed_up.state.root / "secrets/backup_key"
    secret, rows = key.read_text(), backed_up.names()
    # Nothing in the settings tells that the key is another one.
    told = damage(backed_up)
    if damage is wrong_key:
        key.write_text("x" * 43)
    try:
        done = backed_up.drill()
    finally:
        key.write_text(secret)
    assert done.failed
    assert "the drill failed, what serves was not touched" in done.message
    assert told in done.message
    event = backed_up.state.ledger().last_event("drill")
    assert event is not None
    assert event["outcome"] == "failed"
    assert not (backed_up.state.root / "drill").exists()
    assert backed_up.names() == rows
    assert backed_up.server.query("SELECT failed_count FROM pg_stat_archiver") is not None


def test_a_backup_that_came_back_wrong_is_found_by_its_manifest(backed_up: BackedUp, copy: Path) -> None:
    """Whoever has the key can write anything: what PostgreSQL itself said of the files is asked as well."""
    label = max(name for name, each in backed_up.repository.backups().items() if each.kind == "full")
    name = f"backups/{label}/base.tar"
    text = backed_up.repository.run("read", name)
    at = text.index(PLANTED.encode())
    backed_up.repository.run("write", name, text=text[:at] + b"\xff" + text[at + 1 :])
    done = backed_up.drill()
    assert done.failed
    assert f"backup {label} is damaged: pg_verifybackup failed" in done.message
