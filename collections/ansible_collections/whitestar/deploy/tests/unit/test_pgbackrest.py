# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pgBackRest as it is told things and tells them, and the program of the image that calls it."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.backups import ComposeBackups
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.recovery import ContainerRecovery
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.volumes import with_data_volume
from ansible_collections.whitestar.deploy.plugins.module_utils.host.restore import HostRestore
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    BackupError,
    Lineage,
    Target,
    stamp,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.pgbackrest import (
    archive_id,
    empty,
    explained,
    files,
    key_problem,
    listed,
    newest_timeline,
    problems,
    restore_words,
    segments,
    verify_problem,
    wrong_database,
)
from ansible_collections.whitestar.deploy.plugins.modules.compose_backup import ensure_directories

PROGRAM = Path(__file__).parents[2] / "roles/titanic_backup/files/image/titanic-pgbackrest"
KEY = "hunter2-key-of-backups-with-forty-characters"
SETTINGS: dict[str, Any] = {
    "site": "prod",
    "repositories": [
        {"type": "directory", "path": "/srv/backups"},
        {
            "type": "s3",
            "endpoint": "s3.example.org:9000",
            "bucket": "titanic",
            "prefix": "one/two",
            "uri_style": "path",
            "authority": "PEM",
        },
    ],
    "compression": "zstd",
    "schedule": "daily",
    "full_days": 7,
    "keep_full": 4,
    "keep_days": 30,
    "wal_mebibytes": 64,
}
# As pgBackRest 2.55 tells it, shortened.
FULL, NEXT = "20261130-120000F", "20261130-120000F_20261130-130000I"


def told_backup(label: str, kind: str, prior: str | None, at: int, number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "archive": {"start": "000000020000000000000003", "stop": "000000020000000000000003"},
        "database": {"id": 1, "repo-key": number},
        "error": False,
        "info": {"delta": 10, "repository": {"delta": 5}, "size": 100},
        "label": label,
        "lsn": {"start": "0/3000028", "stop": "0/3000158"},
        "prior": prior,
        "timestamp": {"start": at, "stop": at + 2},
        "type": kind,
        **more,
    }


def told(*codes: int, message: str = "ok") -> list[dict[str, Any]]:
    backups = [told_backup(NEXT, "incr", FULL, 1796000000), told_backup(FULL, "full", None, 1795990000)]
    return [
        {
            "archive": [{"database": {"id": 1, "repo-key": 1}, "id": "17-1", "max": "00000002000000000000000A"}],
            "backup": [*backups, told_backup("20261129-120000F", "full", None, 1795900000, error=True)],
            "db": [{"id": 1, "repo-key": 1, "system-id": 7001, "version": "17"}],
            "name": "prod",
            "repo": [
                {"key": number, "status": {"code": code, "message": message}} for number, code in enumerate(codes, 1)
            ],
        }
    ]


def test_its_configuration_has_each_repository_and_no_secret() -> None:
    made = files(SETTINGS)
    lines = made["pgbackrest.conf"].splitlines()
    assert {"repo1-path=/var/lib/titanic-repository/1", "repo2-s3-endpoint=s3.example.org:9000"} <= set(lines)
    assert {"repo2-path=/one/two", "repo2-s3-uri-style=path", "repo2-s3-region=us-east-1"} <= set(lines)
    assert {"repo1-cipher-type=aes-256-cbc", "repo2-cipher-type=aes-256-cbc", "compress-type=zst"} <= set(lines)
    assert "repo2-storage-ca-file=/etc/titanic-backup/authority-2" in lines
    assert made["authority-2"] == "PEM"
    assert "authority-1" not in made
    assert lines[-4:] == ["", "[prod]", "pg1-path=/var/lib/postgresql/data", "pg1-socket-path=/var/run/postgresql"]
    assert "cipher-pass" not in made["pgbackrest.conf"]
    assert "interval=86400\n" in made["schedule"]
    assert "keep_seconds=2592000\n" in made["schedule"]
    assert "s3='2'\n" in made["schedule"]
    assert "compress-type=none" in files({**SETTINGS, "compression": "none"})["pgbackrest.conf"]
    with pytest.raises(BackupError, match="titanic_backup_site: 'a b' is no name"):
        files({**SETTINGS, "site": "a b"})


def test_a_key_is_long_and_in_one_word() -> None:
    assert "has 5 characters, 32 are needed" in key_problem("short")
    assert "has a space" in key_problem("x" * 32 + " y")
    assert key_problem(KEY) == ""


def test_its_list_of_backups_is_ours() -> None:
    found = listed(told(0))
    assert list(found) == [1]
    assert list(found[1]) == [FULL, NEXT], "one with errors is none"
    backup = found[1][NEXT]
    assert (backup.kind, backup.prior, backup.timeline, backup.major, backup.system) == (
        "incremental",
        FULL,
        2,
        17,
        "7001",
    )
    assert (backup.start_lsn, backup.stop_lsn) == (0x3000028, 0x3000158)
    assert backup.ended == stamp(datetime.fromtimestamp(1796000002, UTC))
    assert listed([]) == {}
    assert archive_id(told(0), 1, "7001") == "17-1"
    assert archive_id(told(0), 1, "7002") == ""
    assert newest_timeline(told(0)) == 2
    assert newest_timeline([]) == 1


def test_what_cannot_be_read_is_told_and_what_is_new_is_not() -> None:
    assert problems(told(0, 2)) == []
    assert not empty(told(0, 2))
    assert empty(told(0, 1))
    (problem,) = problems(told(0, 99, message="[CryptoError] unable to flush"))
    assert problem.startswith("repository 2: titanic_secrets_values: backup_key is not the key")


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("ERROR: [039]: <Code>NoSuchBucket</Code>", "titanic_backup_repositories: there is no such bucket"),
        ("<Code>SignatureDoesNotMatch</Code>", "titanic_secrets_values: the store does not take backup_s3_key"),
        ("<Code>RequestTimeTooSkewed</Code>", "titanic_backup_repositories: the clock of the target is off"),
        (
            "unable to verify certificate presented by 's3'",
            "titanic_backup_repositories: the store's certificate is signed",
        ),
        (
            "unable to find hostname 's3' in certificate common name",
            "titanic_backup_repositories: the store's certificate has",
        ),
        ("ERROR: [049]: unable to connect to 's3:443'", "titanic_backup_repositories: the store does not answer"),
        ("unable to open '/x' for write: [13] Permission denied", "titanic_backup_repositories: the repository may"),
        ("unable to acquire lock on file", "another backup is being made"),
        ("[28] No space left on device", "titanic_backup_repositories: the disk of the repository is full"),
        ("P00  ERROR: [031]: option 'x' not valid", "ERROR: [031]: option 'x' not valid"),
        ("", "it said nothing"),
    ],
)
def test_its_complaints_name_a_variable(said: str, meaning: str) -> None:
    assert explained(said).startswith(meaning)


def test_what_is_no_text_is_not_repeated() -> None:
    """pgBackRest repeats what another key makes of a file."""
    told = explained("FormatError: key/value found outside of section at line 1: \ufffd\x01|")
    assert told.startswith("titanic_secrets_values: backup_key is not the key")
    assert "at line 1: ??|" in told


def test_backups_of_another_database_are_refused() -> None:
    assert wrong_database(told(0), "7001", 17) == ""
    assert wrong_database(told(0), "", 17) == ""
    assert "are PostgreSQL 17's, the image is 18" in wrong_database(told(0), "7001", 18)
    other = wrong_database(told(0), "7002", 17)
    assert "another database (system 7001, this one is 7002)" in other
    assert "-e titanic_restore_system=7001" in other


def test_a_moment_is_named_as_it_names_moments() -> None:
    time = datetime(2026, 11, 30, 12, tzinfo=UTC) + timedelta(milliseconds=5)
    words = restore_words(Target("t", time=time), FULL, 2, 3)
    assert {"--repo=2", f"--set={FULL}", "--target-timeline=3", "--type=time"} <= set(words)
    assert "--target=2026-11-30 12:00:00.005000+00" in words
    assert words[-1] == "restore"
    words = restore_words(Target("p", point="p"), FULL, 1, 1)
    assert {"--type=name", "--target=p", "--target-action=promote"} <= set(words)
    assert "--type=default" in restore_words(Target("latest"), FULL, 1, 1)


def test_what_verify_finds_is_told() -> None:
    good = "stanza: prod\nstatus: ok\n  archiveId: 17-1, total WAL checked: 3, total valid WAL: 3\n"
    assert verify_problem(good) == ""
    bad = "stanza: prod\nstatus: error\n  backup: X, status: invalid, total files checked: 9\n    missing: 1\n"
    assert "backup: X, status: invalid" in verify_problem(bad)
    gone = good.replace("archiveId", "backup: X, status: manifest missing\n  archiveId")
    assert "backup: X, status: manifest missing" in verify_problem(gone)
    assert verify_problem("") != ""


def test_the_wal_that_a_repository_has_is_read_from_its_list_of_files() -> None:
    first, second = "000000010000000000000001", "00000001000000000000000A"
    hashed = "0123456789abcdef0123456789abcdef01234567"
    said = f"0000000100000000\n0000000100000000/{first}-{hashed}.zst\n{second}-{hashed}\n00000002.history\n"
    said += f"0000000100000000/{second}.00000028.backup\n0000000100000000/00000001000000000000000B.partial-{hashed}\n"
    assert segments(said) == {first, second}


def test_a_repository_without_the_wal_is_passed_over_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backups = ComposeBackups(DockerClient("/nowhere", "docker", "titanic"), State(tmp_path), {"site": "prod"})
    found = told(0, 0)
    found[0]["db"].append({**found[0]["db"][0], "repo-key": 2})
    found[0]["backup"].append(told_backup(FULL, "full", None, 1795990000, 2))
    needed, end = "000000020000000000000003", "000000020000000000000004"
    has = {1: {end}, 2: {needed, end}}
    monkeypatch.setattr(ComposeBackups, "wal", lambda _, __, number, ___: has[number])
    monkeypatch.setattr(ComposeBackups, "lineage", lambda *_: Lineage.of(2))
    recovery = ContainerRecovery(backups, "restore", "database-1", Target("latest"))
    assert recovery.choose(found, "7001", 2)[0] == 2
    has[2] = {end}
    with pytest.raises(BackupError, match=f"^repository 1: WAL {needed} is missing, and 0 more"):
        recovery.choose(found, "7001", 2)


def test_a_service_has_the_volume_that_was_restored() -> None:
    definition = {"volumes": ["database:/var/lib/postgresql/data", "database-sockets:/run", "/a:/b"], "user": "999"}
    found, volumes = with_data_volume(definition, {"database": {}, "database-sockets": {"x": 1}}, "database-2")
    assert found["volumes"] == ["database-2:/var/lib/postgresql/data", "database-sockets:/run", "/a:/b"]
    assert volumes == {"database-2": {}, "database-sockets": {"x": 1}}
    assert with_data_volume(definition, {"database": {}}, "database") == (definition, {"database": {}})


def test_a_disk_that_is_too_small_for_a_restore_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backups = ComposeBackups(DockerClient("/nowhere", "docker", "titanic"), State(tmp_path), {})
    recovery = ContainerRecovery(backups, "restore", "database-1", Target("latest"))
    backup = listed(told(0))[1][FULL]
    monkeypatch.setattr(ComposeBackups, "free_mebibytes", lambda _: 199)
    with pytest.raises(BackupError, match=r"titanic_engine: only 199 MiB are free .* needs 200 MiB. Free some first"):
        recovery.require_room(backup)
    for free in (200, None):
        monkeypatch.setattr(ComposeBackups, "free_mebibytes", lambda _, free=free: free)
        recovery.require_room(backup)


def test_a_directory_is_made_for_backups_alone(tmp_path: Path) -> None:
    state, path = State(tmp_path / "state"), tmp_path / "backups"
    place = {"type": "directory", "path": str(path)}

    def steps(**other: str) -> list[str]:
        return ensure_directories(state, [{"type": "s3"}, place | other], check=True)

    assert steps() == [f"make the directory {path}"]
    for name in ("archive", "backup", "titanic-check"):
        (path / name).mkdir(parents=True)
    assert steps() == [], "what pgBackRest has made, and what a check that was interrupted has left"
    (path / "somebody").touch()
    with pytest.raises(BackupError, match=r"holds what no backup made \(somebody\). Empty it, or name another one"):
        steps()
    (state.root / "run").mkdir(parents=True)
    (tmp_path / "link").symlink_to(state.root)
    with pytest.raises(BackupError, match="is inside the state directory, and would be lost with it"):
        steps(path=str(tmp_path / "link" / "backups"))


def test_a_moment_is_of_the_timeline_that_served_then(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.write_ledger(state.ledger().with_event("restore", at="2026-11-30T12:00:00Z", timeline_before=1))
    restore = HostRestore(state, None, {"state": "planned"})  # type: ignore[arg-type]
    assert restore.timeline_at(datetime(2026, 11, 30, 11, tzinfo=UTC), 2) == 1
    assert restore.timeline_at(datetime(2026, 11, 30, 13, tzinfo=UTC), 2) == 2
    assert restore.timeline_at(None, 2) == 2


class Program:
    """The image's program with a pgBackRest that notes how it was called and does what it is told."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("settings", "notes", "secrets", "memory", "bin", "data/pg_wal/archive_status"):
            (place / name).mkdir(parents=True)
        for name, text in files({**SETTINGS, "repositories": SETTINGS["repositories"][:1]}).items():
            (place / "settings" / name).write_text(text)
        (place / "secrets/backup_key").write_text(f"{KEY}\n")
        self.wal = place / "data/pg_wal/000000010000000000000001"
        self.wal.write_bytes(b"")
        os.truncate(self.wal, 16 * 2**20)
        self.behave("exit 0")

    def behave(self, script: str) -> None:
        """What pgBackRest does."""
        fake = self.place / "bin/pgbackrest"
        fake.write_text(f'#!/bin/sh\necho "$*" >>"{self.place}/calls"\n{script}\n')
        fake.chmod(0o755)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        names = {"SETTINGS": "settings", "NOTES": "notes", "SECRETS": "secrets", "MEMORY": "memory"}
        environment = {f"TITANIC_BACKUP_{key}": str(self.place / name) for key, name in names.items()}
        environment["PATH"] = f"{self.place / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            [str(PROGRAM), *words],
            cwd=self.place / "data",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def push(self) -> subprocess.CompletedProcess[str]:
        return self.run("push", f"pg_wal/{self.wal.name}", self.wal.name)

    def calls(self) -> list[str]:
        return (self.place / "calls").read_text().splitlines()

    def stopping(self, seconds: float) -> None:
        record = self.place / "data/postmaster.pid"
        record.write_text("\n" * 7 + "stopping  \n")
        os.utime(record, (time.time() - seconds,) * 2)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_a_file_of_wal_is_pushed_with_the_key_in_a_file_alone(program: Program) -> None:
    assert program.push().returncode == 0
    (call,) = program.calls()
    assert call.endswith(f"--stanza=prod archive-push pg_wal/{program.wal.name}")
    assert KEY not in call
    secrets = program.place / "memory/conf.d/secrets.conf"
    assert secrets.read_text() == f"[global]\nrepo1-cipher-pass={KEY}\n"
    assert secrets.stat().st_mode & 0o777 == 0o600


def test_when_too_much_waits_the_archive_gives(program: Program) -> None:
    program.behave("exit 82")
    for number in range(4):
        (program.place / f"data/pg_wal/archive_status/{number}.ready").touch()
    assert program.push().returncode == 1, "64 MiB wait, as many as may"
    assert not (program.place / "notes/given_up").exists()
    (program.place / "data/pg_wal/archive_status/5.ready").touch()
    done = program.push()
    assert done.returncode == 0
    assert "is given up: more than 64 MiB" in done.stderr
    assert (program.place / "notes/given_up").read_text() == f"{program.wal.name}\n"


def test_a_server_that_stops_is_not_held_up(program: Program) -> None:
    program.behave("exit 82")
    program.stopping(1)
    assert program.push().returncode == 200, "once, and no more"
    program.stopping(20)
    assert program.push().returncode == 200
    assert len(program.calls()) == 1, "after 15 s nothing is tried"
    program.behave("sleep 30")
    program.stopping(13)
    began = time.monotonic()
    assert program.push().returncode == 200
    assert time.monotonic() - began < 8


@pytest.mark.parametrize(("said", "told"), [(0, 0), (1, 1), (25, 200), (103, 200)])
def test_what_is_missing_ends_a_recovery_and_what_is_damaged_breaks_it_off(
    program: Program, said: int, told: int
) -> None:
    program.behave(f"exit {said}")
    assert program.run("fetch", "000000010000000000000001", "pg_wal/RECOVERYXLOG").returncode == told


def label(days: float) -> str:
    return f"{datetime.now(UTC) - timedelta(days=days):%Y%m%d-%H%M%S}F"


@pytest.mark.parametrize(
    ("fulls", "kind", "kept"),
    [
        ([], "full", 4),
        ([8], "full", 4),
        ([6], "incr", 4),
        ([60, 50, 40, 29, 20, 15, 10, 9, 1], "incr", 7),
    ],
)
def test_a_full_backup_each_week_and_as_many_are_kept_as_count_and_age_ask(
    program: Program, fulls: list[float], kind: str, kept: int
) -> None:
    listed = "\n".join(f"        full backup: {label(days)}" for days in fulls)
    program.behave(f'case "$*" in *text*) echo "{listed}" ;; *json*) echo "[]" ;; esac')
    (program.place / "notes/given_up").write_text("x\n")
    done = program.run("make", "auto")
    assert done.returncode == 0, done.stderr
    (made,) = [call for call in program.calls() if call.endswith(" backup")]
    assert f"--type={kind} backup" in made
    (expired,) = [call for call in program.calls() if call.endswith(" expire")]
    assert f"--repo1-retention-full={kept} expire" in expired
    assert (program.place / "notes/info.json").read_text() == "[]\n"
    assert not (program.place / "notes/given_up").exists()


def test_a_backup_that_fails_is_not_told_of(program: Program) -> None:
    program.behave('case "$*" in *" backup") exit 55 ;; esac')
    assert program.run("make", "full").returncode != 0
    assert not (program.place / "notes/info.json").exists()
