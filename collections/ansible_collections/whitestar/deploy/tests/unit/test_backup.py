# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups there are, which a moment needs, which may go, and what is overdue."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.base_backup import next_kind
from ansible_collections.whitestar.deploy.plugins.module_utils.local.recovery import room_problem
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.digests import differing, read_digests
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    Backup,
    BackupError,
    Lineage,
    base_of,
    chain,
    expired,
    lsn_of,
    missing_segments,
    moment,
    overdue,
    parse_target,
    segment_name,
    stamp,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Ledger
from ansible_collections.whitestar.deploy.plugins.plugin_utils.backup_validation import wrong_backups
from ansible_collections.whitestar.deploy.tests.helpers import COLLECTION, add_release, history

MIB = 2**20
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
LOCAL = {"titanic_provider": "local"}
ONE = Lineage.of(1)
OPERATED = {"titanic_provider": "kubernetes", "titanic_database_kind": "cloudnative_pg"}
S3 = {"type": "s3", "endpoint": "s3.example.org", "bucket": "titanic"}
SETTINGS = {"schedule": "daily", "drill_max_days": 30}


def places(*found: dict[str, Any]) -> dict[str, Any]:
    return {"titanic_backup_repositories": list(found)}


def backup(days_ago: float, kind: str = "full", prior: str = "", **facts: Any) -> Backup:
    ended = NOW - timedelta(days=days_ago)
    own: dict[str, Any] = {
        "label": f"{ended:%Y%m%dT%H%M%SZ}-{kind}",
        "kind": kind,
        "prior": prior,
        "started": stamp(ended - timedelta(seconds=2)),
        "ended": stamp(ended),
        "timeline": 1,
        "start_lsn": 0x3000028,
        "stop_lsn": 0x3000120,
        "segment_bytes": 16 * MIB,
        "bytes": 10,
        "sealed": 5,
        "major": 18,
        "system": "1",
    }
    return Backup(**{**own, **facts})


def test_a_place_in_the_wal_is_in_a_file() -> None:
    assert lsn_of("0/3000028") == 0x3000028
    assert lsn_of("1/0") == 2**32
    assert segment_name(1, lsn_of("0/3000028"), 16 * MIB) == "000000010000000000000003"
    assert segment_name(0x1F, lsn_of("2/FF000000"), 16 * MIB) == "0000001F00000002000000FF"
    assert segment_name(1, lsn_of("1/0"), 64 * MIB) == "000000010000000100000000"


def test_a_gap_in_the_wal_is_found_wherever_it_is() -> None:
    kept = {segment_name(1, number << 24, 16 * MIB) for number in (2, 3, 4, 5, 0x100, 0x101)}
    wanted = [segment_name(1, number << 24, 16 * MIB) for number in range(6, 0x100)]
    assert missing_segments(kept, backup(1)) == wanted
    kept |= set(wanted)
    assert missing_segments({*kept, "000000020000000000000200", "00000002.history"}, backup(1)) == []
    assert missing_segments(kept - {"000000010000000000000003"}, backup(1)) == ["000000010000000000000003"]
    assert missing_segments(set(), backup(1)) == ["000000010000000000000003"], "even where nothing is left"


HISTORY = "1\t0/5000100\tafter LSN 0/50000C8\n2\t0/7000200\tno recovery target specified\n"


def test_a_recovery_goes_from_one_timeline_to_the_next() -> None:
    line = Lineage.of(3, HISTORY)
    assert line.begins == ((1, 0), (2, 0x5000100), (3, 0x7000200))
    assert [line.segment(number << 24, 16 * MIB) for number in (4, 5, 6, 7, 8)] == [
        "000000010000000000000004",
        "000000020000000000000005",
        "000000020000000000000006",
        "000000030000000000000007",
        "000000030000000000000008",
    ]
    assert line.reaches(backup(1))
    assert line.reaches(backup(1, timeline=2, stop_lsn=0x7000200))
    assert not line.reaches(backup(1, stop_lsn=0x5000101)), "the database went another way from there"
    assert not line.reaches(backup(1, timeline=4))
    assert line.reaches(backup(1, timeline=3, stop_lsn=0xFFFFFFFF))
    kept = {line.segment(number << 24, 16 * MIB) for number in (3, 4, 5, 6, 7)}
    assert missing_segments(kept | {"000000010000000000000009"}, backup(1), line) == []
    assert missing_segments(kept - {"000000020000000000000006"}, backup(1), line) == ["000000020000000000000006"]
    assert missing_segments(kept - {"000000030000000000000007"}, backup(1), line) == [], "the end may be anywhere"


def test_a_chain_that_has_lost_a_part_is_refused() -> None:
    full = backup(3)
    first = backup(2, "incremental", full.label)
    second = backup(1, "incremental", first.label)
    known = {each.label: each for each in (full, first, second)}
    assert chain(known, second.label) == [full, first, second]
    assert chain(known, full.label) == [full]
    del known[first.label]
    with pytest.raises(BackupError, match=f"backup {first.label} is missing, and {second.label} builds on it"):
        chain(known, second.label)


def test_what_is_expired_is_old_and_one_of_many() -> None:
    fulls = [backup(days) for days in (0, 7, 14, 21, 28, 35, 42)]
    assert [each.label for each in expired(fulls, 4, 30, NOW)] == [fulls[6].label], (
        "35 days: a moment of day 30 needs it"
    )
    assert expired(fulls, 7, 0, NOW) == [], "the count keeps them"
    assert expired(fulls, 1, 365, NOW) == [], "the age keeps them"
    assert len(expired(fulls, 1, 0, NOW)) == 6
    assert expired([], 1, 0, NOW) == []


def test_an_incremental_backup_goes_with_the_full_one_and_before_it() -> None:
    old, new = backup(60), backup(1)
    between = backup(50, "incremental", old.label)
    later = backup(40, "incremental", between.label)
    assert expired([old, between, later, new], 1, 0.5, NOW) == [later, between, old]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-11-30T12:00:00Z", NOW),
        ("2026-11-30 13:00:00+01:00", NOW),
        ("2026-11-30T12:00:00.250Z", NOW + timedelta(milliseconds=250)),
    ],
)
def test_a_time_is_taken_with_its_zone(text: str, wanted: datetime) -> None:
    assert parse_target(text, Ledger()).time == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it names no moment"),
        ("2026-11-30T12:00:00", r"has no time zone. Write it as 2026-11-30T12:00:00Z"),
        ("2026-13-30T12:00:00Z", "is not a time"),
        ("before-import", r"no restore point 'before-import' \(restore points: none\)"),
        ("release zzz", r"release 'zzz' is not in the ledger \(releases: a, b\)"),
        ("release b", "release b has no restore point, since backups were off"),
    ],
)
def test_another_moment_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(BackupError, match=f"titanic_restore_to: .*{why}"):
        parse_target(text, history("a", "b"))


def test_a_release_and_a_name_are_their_restore_points() -> None:
    ledger = add_release(Ledger(), "3f2a-1", point="before-1", backup="x")
    ledger = ledger.with_event("point", name="before-1", named=False, lsn="0/5000000", timeline=1)
    ledger = ledger.with_event("point", name="import", named=True, lsn="0/6000000", timeline=2)
    assert parse_target("latest", ledger).latest
    for text in ("release 3f2a", "release 3f2a-1", "before-1"):
        found = parse_target(text, ledger)
        assert (found.point, found.lsn, found.timeline, found.latest) == ("before-1", 0x5000000, 1, False)
    assert parse_target("import", ledger).timeline == 2
    with pytest.raises(BackupError, match=r"restore points: import, before-1"):
        parse_target("other", ledger)


def test_a_moment_is_reached_from_the_newest_backup_before_it() -> None:
    ledger = Ledger().with_event("point", name="p", named=True, lsn="0/5000000", timeline=1)
    old, new = backup(2), backup(1, stop_lsn=0x6000000)
    assert base_of(parse_target("latest", ledger), [new, old], ONE) == new
    assert base_of(parse_target(stamp(NOW), ledger), [new, old], ONE) == new
    assert base_of(parse_target(stamp(NOW - timedelta(days=1.5)), ledger), [new, old], ONE) == old
    assert base_of(parse_target("p", ledger), [old, new], ONE) == old
    with pytest.raises(BackupError, match=r"titanic_restore_to: .* the first backup ended at 2026-11-28"):
        base_of(parse_target(stamp(NOW - timedelta(days=3)), ledger), [old, new], ONE)
    with pytest.raises(BackupError, match="titanic_restore_to: 'p' cannot be reached, no backup is older"):
        base_of(parse_target("p", ledger), [new, backup(3, timeline=2)], ONE)
    with pytest.raises(BackupError, match=r"the repository holds no backup\. Make one"):
        base_of(parse_target("latest", ledger), [], ONE)


def test_a_full_backup_is_made_as_often_as_it_is_to_be() -> None:
    full = backup(5)
    known = {full.label: full}
    assert next_kind({}, "incremental", 7, NOW, 1) == "full", "there is nothing to build on"
    assert next_kind(known, "auto", 7, NOW, 1) == "incremental"
    assert next_kind(known, "auto", 5, NOW, 1) == "full"
    assert next_kind(known, "full", 7, NOW, 1) == "full"
    assert next_kind(known, "auto", 7, NOW, 2) == "full", "a new timeline begins with a full one"


def test_what_is_overdue_is_told() -> None:
    assert list(overdue(Ledger(), SETTINGS, NOW)) == ["backups are on and there is none yet. Make one (--tags backup)."]
    ledger = Ledger().with_event("backup", at=stamp(NOW - timedelta(hours=35)))
    assert list(overdue(ledger, SETTINGS, NOW)) == []
    ledger = ledger.with_event("drill", at=stamp(NOW - timedelta(days=29)), outcome="succeeded")
    assert list(overdue(ledger, SETTINGS, NOW)) == []
    ledger = ledger.with_event("drill", at=stamp(NOW), outcome="failed")
    (line,) = overdue(ledger, SETTINGS, NOW + timedelta(hours=2))
    assert line == "the newest backup is 37.0 hours old, titanic_backup_schedule is daily: --tags backup"
    *_, line = overdue(ledger, SETTINGS, NOW + timedelta(days=2))
    assert line.startswith("the last good drill was 31.0 days ago, titanic_drill_max_days is 30: prove that backups")


def test_no_drill_at_all_is_overdue_once_backups_are_that_old() -> None:
    ledger = Ledger().with_event("backup_first", at=stamp(NOW - timedelta(days=31))).with_event("backup", at=stamp(NOW))
    (line,) = overdue(ledger, SETTINGS, NOW)
    assert line.startswith("no drill has been good for 31.0 days")


def test_a_time_that_is_recorded_is_that_time() -> None:
    """A restore to it goes no less far: a commit of the same millisecond is before it."""
    commit = datetime(2026, 11, 30, 12, 0, 0, 1200, UTC)
    assert moment(stamp(commit)) == commit


def test_room_is_looked_for_before_a_restore() -> None:
    assert room_problem(100, 100, Path("/s/restore")) == ""
    assert room_problem(99, 100, Path("/s/restore")) == (
        "titanic_state_directory: only 99 MiB are free on the disk of /s, a restore needs 100 MiB. Free some first."
    )


def test_digests_tell_rows_that_differ_and_their_order() -> None:
    printed = [b"== point\n", b"0/5000000\n", b"== public.a\n", b"(1)\n", b"(2)\n", b"== public.b\n"]
    live = read_digests(printed)
    assert live["point"] == "0/5000000"
    assert live["public.a"].startswith("2 ")
    assert live["public.b"].startswith("0 ")
    assert differing(live, read_digests(printed[2:])) == []
    (line,) = differing(live, read_digests([printed[2], printed[4], printed[3], printed[5]]))
    assert line.startswith("public.a: 2 rows with SHA-256 ")
    (line,) = differing(live, read_digests(printed[2:5]))
    assert line.endswith("in the live database, no such table in the restored one")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"titanic_provider": "kubernetes"}, "until titanic_backup serves pods"),
        ({"titanic_provider": "kubernetes", "titanic_database_kind": "external"}, "have its owner archive WAL"),
        (OPERATED, "kubernetes keeps backups in one repository, and 0 are named. Name a bucket"),
        ({**OPERATED, **places({"path": "/a"})}, "CloudNativePG keeps backups in a bucket"),
        ({**OPERATED, **places(S3)}, "takes backup_s3_key and backup_s3_key_secret"),
        ({"titanic_provider": "compose"}, "compose keeps backups in one repository or two, and 0 are named"),
        ({"titanic_provider": "compose", **places({"path": "here"})}, "here is not an absolute path"),
        ({"titanic_provider": "compose", **places({"type": "s3"})}, "has no endpoint and no bucket"),
        ({"titanic_provider": "compose", **places({**S3, "endpoint": "https://s3"})}, "https://s3 is no host"),
        ({"titanic_provider": "compose", **places({**S3, "path": "/a"})}, "an S3 repository has no path"),
        ({"titanic_provider": "compose", **places({**S3, "authority": "me"})}, "authority is no certificate in PEM"),
        ({"titanic_provider": "compose", **places(S3)}, "takes backup_s3_key and backup_s3_key_secret"),
        ({"titanic_provider": "local", **places(S3)}, "local keeps backups in a directory"),
        (LOCAL, "local keeps backups in one repository, and 0 are named"),
        (
            {"titanic_provider": "local", "titanic_backup_repositories": [{"path": "here"}]},
            "here is not an absolute path",
        ),
        (
            {"titanic_provider": "local", "titanic_backup_repositories": [{"path": "/a"}, {"path": "/b"}]},
            "and 2 are named",
        ),
        (
            {
                "titanic_provider": "local",
                "titanic_state_directory": "/srv/titanic",
                "titanic_backup_repositories": [{"path": "/srv/titanic/backups"}],
            },
            "/srv/titanic/backups is inside titanic_state_directory, and would be lost with it",
        ),
        (
            {
                "titanic_provider": "compose",
                "titanic_state_directory": "/srv/titanic",
                **places({"path": "/srv/backups"}, {"path": "/srv/titanic/backups"}),
            },
            "/srv/titanic/backups is inside titanic_state_directory, and would be lost with it",
        ),
        (
            {
                "titanic_provider": "local",
                "titanic_backup_repositories": [{"path": "/srv/backups"}],
                "titanic_secrets_values": {"backup_key": "hunter2"},
            },
            "titanic_secrets_values: backup_key has 7 characters, 32 are needed",
        ),
    ],
)
def test_what_cannot_be_is_refused_on_the_controller(values: dict[str, Any], why: str) -> None:
    assert wrong_backups(values) == [], "nothing is asked of backups that are off"
    (problem,) = wrong_backups({**values, "titanic_backup_enabled": True})
    assert why in problem


def test_backups_that_can_be_are_not_refused() -> None:
    secrets = {"titanic_secrets_values": {"backup_s3_key": "a", "backup_s3_key_secret": "b"}}
    two = {"titanic_provider": "compose", "titanic_backup_enabled": True, **places(S3, {"path": "/srv/backups"})}
    assert wrong_backups({**two, **secrets}) == []
    operated = {**OPERATED, "titanic_backup_enabled": True, **places(S3)}
    assert wrong_backups({**operated, **secrets}) == []
    assert wrong_backups({**operated, "titanic_secrets_source": "external_secrets"}) == []
    values = {**LOCAL, "titanic_backup_enabled": True}
    assert wrong_backups({**values, "titanic_backup_repositories": [{"path": "/srv/backups"}]}) == []


@pytest.mark.parametrize("directory", ["/var/lib/titanic", "/srv/it's 100% here"])
def test_the_server_is_told_the_command_that_a_restore_reads_with(directory: str) -> None:
    """The role says it in an expression, a restore in Python: one program, quoted for a shell, with no stray %."""
    variables = yaml.safe_load((COLLECTION / "roles/titanic_common/vars/main.yml").read_text())
    expressions = jinja2.Environment()
    expressions.filters["quote"] = shlex.quote

    def rendered(text: str, **names: Any) -> str:
        return expressions.from_string(text).render(titanic_state_directory=directory, **names)

    place = rendered(variables["__titanic_common_backup"])
    words = [rendered(word, __titanic_common_backup=place) for word in variables["__titanic_common_archiver"]]
    told = rendered(variables["__titanic_common_archives"]["archive_command"], __titanic_common_archiver=words)
    assert told == Repository(State(Path(directory)), {}).shell("push", "%p", "%f")
    # As PostgreSQL expands it, and then a shell.
    run = shlex.split(told.replace("%p", "pg_wal/1").replace("%f", "1").replace("%%", "%"))
    assert run == [*words, "push", "pg_wal/1", "1"]


@pytest.mark.parametrize(("seconds", "timeout"), [(60, "50s"), (12, "10s"), (2, "1s")])
def test_a_file_of_wal_is_closed_before_the_time_is_over(seconds: int, timeout: str) -> None:
    variables = yaml.safe_load((COLLECTION / "roles/titanic_common/vars/main.yml").read_text())
    told = jinja2.Environment().from_string(variables["__titanic_common_archives"]["archive_timeout"])
    assert told.render(titanic_backup_rpo_seconds=seconds) == timeout
