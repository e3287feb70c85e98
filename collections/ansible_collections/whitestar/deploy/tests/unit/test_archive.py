# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object of a repository is what was written, or is found to be damaged; and who archives is never waited for."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.tests.helpers import COLLECTION

SPEC = importlib.util.spec_from_file_location("archive", COLLECTION / "roles/titanic_backup/files/archive.py")
WAL = "000000010000000000000001"


@pytest.fixture
def archive() -> ModuleType:
    assert SPEC is not None
    assert SPEC.loader is not None
    found = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(found)
    return found


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Those of a repository, from within a data directory."""
    for name in ("repository", "notes", "data/pg_wal/archive_status", "data/global"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "repository/repository.json").write_text(json.dumps({"system": "7"}))
    (tmp_path / "key").write_text("k" * 43)
    (tmp_path / "data/global/pg_control").write_bytes((7).to_bytes(8, "little") + bytes(8))
    (tmp_path / "data/pg_wal" / WAL).write_bytes(b"wal" * 50_000)
    monkeypatch.chdir(tmp_path / "data")
    places = {name: str(tmp_path / name) for name in ("repository", "notes")}
    return {**places, "key_file": str(tmp_path / "key"), "compression": "none", "wal_mebibytes": 64}


def push(archive: ModuleType, settings: dict[str, Any]) -> int:
    return int(archive.archive(settings, Path("pg_wal") / WAL, WAL))


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_an_object_comes_back(archive: ModuleType, settings: dict[str, Any], size: int) -> None:
    sealed, text = archive.Sealed(settings), os.urandom(size)
    sealed.write("wal/x", iter([text[:100], text[100:]]))
    assert b"".join(sealed.read("wal/x")) == text
    assert archive.problem(sealed, "wal/x") == ""


def test_every_damage_is_found(archive: ModuleType, settings: dict[str, Any]) -> None:
    sealed = archive.Sealed(settings)
    sealed.write("wal/x", iter([os.urandom(2**20), b"the rest"]))
    path = sealed.path("wal/x")
    whole = path.read_bytes()
    for place in (0, 8, 9, 40, 41, 44, 45, 46, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert archive.problem(sealed, "wal/x"), f"one bit in byte {place}"
    for length in (0, 10, 41, 44, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert archive.problem(sealed, "wal/x"), f"cut off after {length} bytes"
    # After the first frame: what is left is a whole number of frames.
    path.write_bytes(whole[: 41 + 4 + 2**20 + 16])
    assert "cut off" in archive.problem(sealed, "wal/x")
    # The same, by somebody who says that it was the last one.
    path.write_bytes(whole[:41] + bytes([whole[41] | 0x80]) + whole[42 : 41 + 4 + 2**20 + 16])
    assert "frame 0 is damaged" in archive.problem(sealed, "wal/x")
    path.write_bytes(whole + b"x")
    assert "more than was written" in archive.problem(sealed, "wal/x")
    path.write_bytes(whole)
    assert archive.problem(sealed, "wal/x") == ""


def test_another_name_and_another_key_are_found(archive: ModuleType, settings: dict[str, Any]) -> None:
    sealed = archive.Sealed(settings)
    sealed.write("wal/x", iter([b"text"]))
    sealed.path("wal/x").rename(sealed.path("wal/y"))
    assert "the key is another" in archive.problem(sealed, "wal/y")
    assert archive.problem(sealed, "wal/x") == "is missing"
    sealed.path("wal/y").rename(sealed.path("wal/x"))
    Path(settings["key_file"]).write_text("K" * 43)
    assert "the key is another" in archive.problem(archive.Sealed(settings), "wal/x")


def test_nothing_is_readable_and_no_two_objects_are_alike(archive: ModuleType, settings: dict[str, Any]) -> None:
    sealed = archive.Sealed(settings)
    texts = []
    for name in ("wal/x", "wal/y"):
        sealed.write(name, iter([b"secret-in-a-row" * 100]))
        texts.append(sealed.path(name).read_bytes()[41:])
        assert b"secret-in-a-row" not in texts[-1]
    assert texts[0] != texts[1]


def backup_tar(files: dict[str, bytes]) -> bytes:
    """What pg_basebackup writes, its manifest last."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return found.getvalue()


@pytest.fixture
def taken(archive: ModuleType, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Any]:
    """Takes what comes on standard input into the backup ``x``."""

    def take(stream: bytes) -> Any:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stream)))
        return archive.take(archive.Sealed(settings), "backups/.x")

    return take


def test_a_base_backup_is_kept_as_it_came(
    archive: ModuleType, settings: dict[str, Any], taken: Callable[[bytes], Any]
) -> None:
    """Every byte of it, whatever of that was looked at on the way."""
    files = {"base/1": os.urandom(3 * 2**20 + 5), "base/2": b"", "base/3": b"x" * 512, "backup_manifest": b'{"a": 1}'}
    whole = backup_tar(files)
    assert len(whole) % 512 == 0
    told = taken(whole)
    path = archive.Sealed(settings).path("backups/.x/base.tar")
    wanted = {"bytes": len(whole), "sealed": path.stat().st_size, "manifest": {"a": 1}}
    assert told == wanted
    path.parent.rename(path.parent.with_name("x"))
    sealed = archive.Sealed(settings)
    assert b"".join(sealed.read("backups/x/base.tar")) == whole
    assert b"".join(sealed.read("backups/x/backup_manifest")) == files["backup_manifest"]


@pytest.mark.parametrize("length", [0, 100, 512, 2**20, 2 * 2**20 + 512, 2 * 2**20 + 1100])
def test_a_base_backup_that_was_cut_off_is_refused(
    archive: ModuleType, taken: Callable[[bytes], Any], length: int
) -> None:
    whole = backup_tar({"base/1": os.urandom(2 * 2**20), "base/2": b"x" * 600, "backup_manifest": b"{}"})
    with pytest.raises((archive.DamagedError, tarfile.ReadError)):
        taken(whole[:length])


def test_wal_is_archived_once_and_never_replaced(archive: ModuleType, settings: dict[str, Any]) -> None:
    assert push(archive, settings) == 0
    kept = Path(settings["repository"], "wal", WAL)
    before = kept.read_bytes()
    assert push(archive, settings) == 0, "PostgreSQL may ask for it again after a crash"
    assert kept.read_bytes() == before
    (Path("pg_wal") / WAL).write_bytes(b"another")
    assert push(archive, settings) == archive.FAILED
    assert kept.read_bytes() == before


def test_a_fetch_tells_an_end_from_a_damage(archive: ModuleType, settings: dict[str, Any], tmp_path: Path) -> None:
    push(archive, settings)
    assert archive.fetch(settings, WAL, tmp_path / "out") == 0
    assert (tmp_path / "out").read_bytes() == b"wal" * 50_000
    assert archive.fetch(settings, WAL.replace("1", "2"), tmp_path / "out") == archive.FAILED
    path = Path(settings["repository"], "wal", WAL)
    path.write_bytes(path.read_bytes()[:-1])
    assert archive.fetch(settings, WAL, tmp_path / "out") == archive.FINAL, "or a recovery would end there, content"


def test_wal_of_another_database_is_refused(archive: ModuleType, settings: dict[str, Any]) -> None:
    Path("global/pg_control").write_bytes((8).to_bytes(8, "little"))
    assert push(archive, settings) == archive.FAILED
    assert not Path(settings["repository"], "wal", WAL).exists()


def waiting(count: int) -> None:
    for number in range(count):
        Path(f"pg_wal/archive_status/{number}.ready").touch()
    (Path("pg_wal") / WAL).write_bytes(bytes(2**20))


def test_what_gives_is_the_archive_once_too_much_waits(archive: ModuleType, settings: dict[str, Any]) -> None:
    Path(settings["repository"], "repository.json").unlink()
    waiting(64)
    assert push(archive, settings) == archive.FAILED, "64 MiB wait, which is what may"
    waiting(65)
    assert push(archive, settings) == 0
    assert Path(settings["notes"], "given_up").read_text() == f"{WAL}\n"


def test_a_server_that_stops_is_not_held_up(archive: ModuleType, settings: dict[str, Any]) -> None:
    lines = ["1", "/data", "0", "5432", "/run", "", "1 2", "stopping"]
    Path("postmaster.pid").write_text("\n".join(lines))
    assert push(archive, settings) == 0, "what can be archived is"
    Path(settings["repository"], "repository.json").unlink()
    assert push(archive, settings) == archive.FINAL, "PostgreSQL asks three times otherwise, and for each file"
    old = time.time() - archive.STOP_SECONDS - 1
    os.utime("postmaster.pid", (old, old))
    Path(settings["repository"], "repository.json").write_text(json.dumps({"system": "7"}))
    assert push(archive, settings) == archive.FINAL, "a slow repository is not waited for either"


def test_a_disk_that_never_answers_is_given_up(
    archive: ModuleType, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "PUSH_SECONDS", 0.2)
    monkeypatch.setattr(archive, "push", lambda *_: time.sleep(30))
    began = time.monotonic()
    assert push(archive, settings) == archive.FAILED
    assert time.monotonic() - began < 5
