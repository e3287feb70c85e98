# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository of a local target's backups: a directory of encrypted objects, and whose it is."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    closed_to_others,
    make_directory,
    read_json,
    write_json,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import (
    as_owner,
    service_environment,
    unprivileged,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    SHORTEST_KEY,
    Backup,
    BackupError,
    Lineage,
)

FORMAT = 1
RECORD = "repository.json"
VARIABLE = "titanic_backup_repositories"
KEY_VARIABLE = "titanic_secrets_values"


@dataclass(frozen=True)
class Repository:
    """A repository, as the settings in the state directory name it (``repository``, ``key_file``, ``site``, …)."""

    state: State
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, state: State) -> Repository | None:
        """That of a deployment; None where backups are off. Raises ValueError if the settings cannot be read."""
        found = state.backup_settings()
        return cls(state, found) if found else None

    @classmethod
    def needed(cls, state: State) -> Repository:
        """That of a deployment. Raises BackupError where backups are off, ValueError if that cannot be read."""
        found = cls.of(state)
        if found is None:
            raise BackupError("titanic_backup_enabled: backups are off here. Turn them on, and run the whole site.")
        return found

    @property
    def root(self) -> Path:
        """Its directory."""
        return Path(self.settings["repository"])

    @property
    def owner(self) -> tuple[int, int] | None:
        """Who writes it: the account that PostgreSQL runs as."""
        return unprivileged(self.settings["account"])

    def command(self, *words: str) -> list[str]:
        """How the program beside the settings is called, which encrypts and decrypts."""
        place = self.state.backup
        return [str(place / "tools/bin/python"), "-I", str(place / "archive.py"), str(place / "settings.json"), *words]

    def shell(self, *words: str) -> str:
        """The same as a server setting has it, in which the words may be ``%p`` and ``%f``."""
        return " ".join([*(shlex.quote(word).replace("%", "%%") for word in self.command()), *words])

    def run(self, *words: str, text: bytes = b"", seconds: float = 3600) -> bytes:
        """Run the program. Raises BackupError with its words."""
        try:
            done = subprocess.run(
                self.command(*words), input=text, capture_output=True, check=False, timeout=seconds, **self.process()
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackupError(f"the repository {self.root} could not be used: {error}") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-1500:].removeprefix("titanic archive: ")
            raise BackupError(f"the repository {self.root}: {said}")
        return bytes(done.stdout)

    def process(self) -> dict[str, Any]:
        """Arguments of ``subprocess`` for whoever works on it."""
        environment = service_environment({"HOME": str(self.state.backup)})
        return {"cwd": "/", "env": environment, **as_owner(self.owner)}

    def key_check(self) -> str:
        """What tells the right key from another and nothing about it. Raises OSError, BackupError for a short one."""
        try:
            secret = Path(self.settings["key_file"]).read_bytes().strip()
        except FileNotFoundError as error:
            raise BackupError(f"{KEY_VARIABLE}: there is no backup_key here yet. Run the whole site.") from error
        if len(secret) < SHORTEST_KEY:
            raise BackupError(
                f"{KEY_VARIABLE}: backup_key has {len(secret)} characters, {SHORTEST_KEY} are needed. "
                "Give a random one."
            )
        return hmac.new(secret, b"titanic repository", hashlib.sha256).hexdigest()[:32]

    def record(self) -> dict[str, Any]:
        """Whose it is. Raises BackupError where that is not there: it is away, or empty."""
        found = read_json(self.root / RECORD, {})
        if not found:
            what = "is empty" if self.root.is_dir() and not any(self.root.iterdir()) else "is away or is none of ours"
            raise BackupError(f"{VARIABLE}: {self.root} {what} ({RECORD} is missing): mount it, or name the right one")
        return dict(found)

    def check_right(self) -> None:
        """Refuse a directory that cannot be written to, or be made. Raises BackupError."""
        made = self.root / "wal"
        place = next(path for path in (made, self.root, *self.root.parents) if os.access(path, os.F_OK))
        # Its owner writes to it; who deploys makes it.
        who = self.process() if place == made else {}
        words = ["test", "-d", str(place), "-a", "-w", str(place), "-a", "-x", str(place)]
        if subprocess.run(words, check=False, **who).returncode:
            raise BackupError(f"{VARIABLE}: {place} cannot be written to: grant that right, or name another directory")
        way = place.parent if place == self.root else place
        if self.owner and place != made and (closed := closed_to_others(way)):
            raise BackupError(
                f"{VARIABLE}: '{self.settings['account']}' archives WAL and cannot enter {closed}: open it to others, "
                f"or name another directory"
            )

    def create(self, system: str, major: int) -> None:
        """Have it be that of this database. Raises BackupError, OSError."""
        make_directory(self.root, 0o700, self.owner)
        others = sorted(path.name for path in self.root.iterdir() if path.name not in {"lost+found", "wal", "backups"})
        if others:
            raise BackupError(f"{VARIABLE}: {self.root} holds what no backup made ({', '.join(others[:5])}): empty it")
        facts = {"format": FORMAT, "site": self.settings["site"], "system": system, "major": major}
        for name in ("wal", "backups"):
            make_directory(self.root / name, 0o700, self.owner)
        write_json(self.root / RECORD, {**facts, "key_check": self.key_check()}, 0o600, self.owner)

    def check(self, major: int, system: str = "", *, writes: bool = True) -> dict[str, Any]:
        """Refuse a repository that is not this deployment's, before anything is touched. Raises BackupError, OSError.

        ``system`` is the identifier of the database; empty where that need not be the same. ``writes`` is whether
        the caller cannot go on without the right to write.
        """
        found = self.record()
        if found["format"] != FORMAT:
            raise BackupError(f"{VARIABLE}: {self.root} has format {found['format']}, this collection reads {FORMAT}")
        if not hmac.compare_digest(found["key_check"], self.key_check()):
            raise BackupError(
                f"{KEY_VARIABLE}: backup_key is not the key that {self.root} was made with. Give that one."
            )
        if found["site"] != self.settings["site"]:
            raise BackupError(
                f"{VARIABLE}: {self.root} is the repository of the site '{found['site']}', and this one is "
                f"'{self.settings['site']}' (titanic_backup_site). Name another directory."
            )
        if found["major"] != major:
            raise BackupError(
                f"titanic_database_local_bindir: the backups in {self.root} are PostgreSQL {found['major']}'s, the "
                f"programs are {major}. Set it to PostgreSQL {found['major']}, or name a new repository."
            )
        if writes:
            self.check_right()
        if system and found["system"] != system:
            raise BackupError(
                f"{VARIABLE}: {self.root} holds another database (system {found['system']}, this one is {system}). "
                f"Name a new directory, or take that database over (--tags restore "
                f"-e titanic_restore_system={found['system']})."
            )
        return found

    def backups(self) -> dict[str, Backup]:
        """All that are complete, by label, oldest first. Raises BackupError if one cannot be read."""
        names = sorted(path.name for path in (self.root / "backups").glob("[0-9]*"))
        objects = {name: f"backups/{name}/backup.json" for name in names}
        found = json.loads(self.run("records", text=json.dumps(list(objects.values())).encode())) if names else {}
        return {name: Backup(**found[place]) for name, place in objects.items()}

    def wal(self) -> set[str]:
        """The files of WAL that are there, by name."""
        return {path.name for path in (self.root / "wal").glob("[0-9A-F]*")}

    def lineage(self, timeline: int) -> Lineage:
        """How a timeline came about. Raises BackupError if its history cannot be read."""
        name = f"{timeline:08X}.history"
        there = (self.root / "wal" / name).exists()
        return Lineage.of(timeline, self.run("read", f"wal/{name}").decode() if there else "")

    def newest_timeline(self) -> int:
        """That of what was archived last, which is the one that served."""
        files = [path for path in (self.root / "wal").glob("[0-9A-F]*") if re.fullmatch("[0-9A-F]{24}", path.name)]
        newest = max(files, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)
        return int(newest.name[:8], 16) if newest else 1

    def given_up(self) -> list[str]:
        """The files of WAL that were given up because too much of it waited."""
        try:
            return (Path(self.settings["notes"]) / "given_up").read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return []

    def forget_given_up(self) -> None:
        """A new backup does not need them."""
        (Path(self.settings["notes"]) / "given_up").unlink(missing_ok=True)

    def write_backup(self, backup: Backup) -> None:
        """Complete a backup: what is in ``.LABEL`` becomes ``LABEL``. Raises BackupError, OSError."""
        place = self.root / "backups"
        self.run("write", f"backups/.{backup.label}/backup.json", text=json.dumps(asdict(backup)).encode())
        (place / f".{backup.label}").rename(place / backup.label)

    def verify(self, backups: Sequence[Backup]) -> None:
        """Read everything that is kept. Raises BackupError that names what is damaged or missing."""
        names = [f"backups/{each.label}/{part}" for each in backups for part in ("backup_manifest", "base.tar")]
        names += [f"wal/{name}" for name in sorted(self.wal())]
        found = json.loads(self.run("verify", text=json.dumps(names).encode()))
        if found:
            told = "; ".join(f"{name} {why}" for name, why in sorted(found.items())[:5])
            raise BackupError(f"the repository {self.root} is damaged: {told}")

    def remove(self, backup: Backup) -> None:
        """Remove a backup, its record first. Raises OSError."""
        place = self.root / "backups" / backup.label
        (place / "backup.json").unlink(missing_ok=True)
        shutil.rmtree(place)

    def remove_wal_before(self, first: str) -> int:
        """Remove the WAL that is older than any backup needs; how many files. History files stay, which are small."""
        gone = 0
        for path in (self.root / "wal").iterdir():
            if re.match(r"[0-9A-F]{24}", path.name) and path.name[8:24] < first[8:24]:
                path.unlink()
                gone += 1
        return gone
