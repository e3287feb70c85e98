# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of a Compose target: by pgBackRest in the service ``backup``, or in a container of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import read_json
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    DockerClient,
    EngineError,
    EngineTimeoutError,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.psql import ContainerServer
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.archiving import (
    EXPOSED,
    restore_point,
    wal_not_archived,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release import pgbackrest
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    Backup,
    BackupError,
    Lineage,
    days,
    moment,
    overdue,
    stamp,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Ledger

BACKUP, DATABASE = "backup", "database"
PROGRAM = "titanic-pgbackrest"
ACCOUNT = 999
BACKUP_SECONDS = 4 * 3600
ASK_SECONDS = 120
ARCHIVE_SECONDS = 60
SYSTEM = "SELECT json_build_object('id', (SELECT system_identifier::text FROM pg_control_system()), "
SYSTEM += "'major', current_setting('server_version_num')::int / 10000)"
# Nothing in a container of ours is root, nor may it write where nothing is mounted.
CONFINED = ["--user", f"{ACCOUNT}:{ACCOUNT}", "--read-only", "--cap-drop", "ALL", "--pids-limit", "200"]
CONFINED += ["--security-opt", "no-new-privileges:true", "--tmpfs", "/tmp:mode=1777,noexec,nosuid"]  # noqa: S108
CONFINED += ["--shm-size", "128m"]


@dataclass(frozen=True)
class ComposeBackups:
    """Backups as the settings in the state directory have them.

    Beside what :func:`pgbackrest.files` reads: ``image``, ``mounts`` (as ``SOURCE:TARGET[:ro]``), ``key_file`` and
    ``reaches_out`` (whether a repository is not on this host).
    """

    engine: DockerClient
    state: State
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, engine: DockerClient, state: State) -> ComposeBackups | None:
        """Those of a deployment; None where backups are off. Raises ValueError if the settings cannot be read."""
        found = state.backup_settings()
        return cls(engine, state, found) if found else None

    @classmethod
    def needed(cls, engine: DockerClient, state: State) -> ComposeBackups:
        """Those of a deployment. Raises BackupError where backups are off, ValueError if that cannot be read."""
        found = cls.of(engine, state)
        if found is None:
            raise BackupError("titanic_backup_enabled: backups are off here. Turn them on, and run the whole site.")
        return found

    @property
    def configuration(self) -> Path:
        """The directory with pgBackRest's configuration."""
        return self.state.backup / "pgbackrest"

    @property
    def notes(self) -> Path:
        """The directory in which the archive and the schedule leave word."""
        return self.state.backup / "notes"

    def container(self, service: str) -> str:
        """The id of the running container of a service; empty if none runs. Raises EngineError."""
        return next((str(c["Id"]) for c in self.engine.containers(service) if c["State"]["Running"]), "")

    def running(self) -> bool:
        """Whether the database that serves runs. Raises EngineError."""
        return bool(self.container(DATABASE))

    def server(self) -> ContainerServer:
        """The database that serves. Raises BackupError if it does not run."""
        if not (container := self.container(DATABASE)):
            raise BackupError(
                "the database does not run, so that there is nothing to back up. Start it (--tags start)."
            )
        return ContainerServer(self.engine, container)

    def options(self, *more: str) -> list[str]:
        """How a container of its own is run that is to reach the repositories."""
        words = [*CONFINED]
        for mount in self.settings["mounts"]:
            words += ["--volume", str(mount)]
        return [*words, *more]

    def network(self) -> str:
        """The network of such a container, which knows nobody of ours."""
        return "bridge" if self.settings["reaches_out"] else "none"

    def run(self, *words: str, volume: str = "", seconds: float = ASK_SECONDS) -> str:
        """Run the program of the image in a container of its own, with a volume for data: what it printed.

        Raises BackupError with what pgBackRest complained of.
        """
        more = ["--network", self.network(), *(["--volume", f"{volume}:{pgbackrest.DATA}"] if volume else [])]
        try:
            done = self.engine.run_container(
                self.settings["image"], [PROGRAM, *words], *self.options(*more), seconds=seconds
            )
        except EngineTimeoutError as error:
            what = f"titanic_backup_repositories: there was no answer within {seconds:g} s ({error})"
            raise BackupError(f"{what}. See that each repository can be reached.") from error
        except EngineError as error:
            raise BackupError(str(error)) from error
        if done.returncode:
            raise BackupError(pgbackrest.explained(done.stderr or done.stdout))
        return done.stdout

    def ask(self, *words: str, seconds: float = ASK_SECONDS) -> str:
        """Run it in the service ``backup``, which sees the live data too. Raises BackupError, EngineError."""
        if not (container := self.container(BACKUP)):
            raise BackupError("the container of the service backup does not run. Run the whole site (make up).")
        done = self.engine.start(["exec", container, PROGRAM, *words], "", seconds)
        if done.returncode:
            raise BackupError(pgbackrest.explained(done.stderr or done.stdout))
        return done.stdout

    def told(self) -> list[dict[str, Any]]:
        """What pgBackRest says of the repositories. Raises BackupError, also for one that cannot be read."""
        return self.readable(self.run("rest", "--output=json", "info"))

    def checked(self) -> list[dict[str, Any]]:
        """The same, once each repository has been written to. Raises BackupError."""
        return self.readable(self.run("check"))

    @staticmethod
    def readable(told: str) -> list[dict[str, Any]]:
        """What was told as JSON, if all of it could be read. Raises BackupError."""
        # Not strict: of a file that another key opened pgBackRest repeats letters that JSON has not.
        found: list[dict[str, Any]] = json.loads(told, strict=False)
        if wrong := pgbackrest.problems(found):
            raise BackupError("; ".join(wrong))
        return found

    def live_system(self) -> tuple[str, int]:
        """Identifier and major version of the database that serves; empty and 0 where none runs."""
        if not self.running():
            return "", 0
        found: Any = self.server().query(SYSTEM)
        return str(found["id"]), int(found["major"])

    def refuse_others(self, told: Sequence[Mapping[str, Any]], consent: str = "") -> None:
        """Refuse repositories of another database, unless somebody consents to that one. Raises BackupError."""
        system, major = self.live_system()
        systems = {str(each["system-id"]) for stanza in told for each in stanza.get("db", [])}
        if system and (problem := pgbackrest.wrong_database(told, "" if consent in systems else system, major)):
            raise BackupError(problem)

    def lineage(self, told: Sequence[Mapping[str, Any]], number: int, system: str, timeline: int) -> Lineage:
        """How a timeline came about, as a repository has it. Raises BackupError."""
        place = f"archive/{self.settings['site']}/{pgbackrest.archive_id(told, number, system)}/{timeline:08X}.history"
        history = ""
        if timeline > 1:
            # One that is missing is the first of a database that was restored without us.
            with suppress(BackupError):
                history = self.run("rest", f"--repo={number}", "repo-get", place)
        return Lineage.of(timeline, history)

    def wal(self, told: Sequence[Mapping[str, Any]], number: int, system: str) -> set[str]:
        """The files of a database's WAL that a repository has. Raises BackupError."""
        place = f"archive/{self.settings['site']}/{pgbackrest.archive_id(told, number, system)}"
        return pgbackrest.segments(self.run("rest", f"--repo={number}", "--recurse", "repo-ls", place))

    def mark(self, name: str, *, named: bool = False) -> dict[str, Any]:
        """Make a restore point, as an event of the ledger has it. Raises BackupError, EngineError."""
        return {"name": name, "at": stamp(), "named": named, **restore_point(self.server(), name)}

    def archive_now(self) -> None:
        """Have all WAL that was written so far in the repositories. Raises BackupError if that takes too long."""
        if wanted := wal_not_archived(self.server(), ARCHIVE_SECONDS):
            said = self.engine.logs(self.container(DATABASE), 40)
            told = [line for line in said.splitlines() if "ERROR" in line or "titanic backup" in line]
            why = pgbackrest.explained("\n".join(told)) if told else "its log says why"
            raise BackupError(
                f"titanic_backup_repositories: WAL {wanted} was not archived within {ARCHIVE_SECONDS} s: {why}"
            )

    def make(self, kind: str) -> Backup:
        """Make a backup in each repository: that of the first. Raises BackupError, EngineError."""
        words = {"full": "full", "incremental": "incr", "auto": "auto"}
        self.ask("make", words[kind], seconds=BACKUP_SECONDS)
        found = self.scheduled()
        if found is None:
            raise BackupError("a backup was made and is not in the list of backups: --tags drill says what is wrong")
        return found

    def scheduled(self) -> Backup | None:
        """The newest backup, as the schedule or a run has left word of it."""
        told = read_json(self.notes / "info.json", [])
        backups = pgbackrest.listed(told if isinstance(told, list) else []).get(1, {})
        return max(backups.values(), key=lambda each: each.label, default=None)

    def given_up(self) -> list[str]:
        """The files of WAL that were given up because too much of it waited."""
        try:
            return (self.notes / "given_up").read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return []

    def ledger(self) -> Ledger:
        """The ledger with the newest backup of the schedule, which has none of its own."""
        ledger, newest = self.state.ledger(), self.scheduled()
        known = ledger.last_event("backup")
        if newest is None or (known and moment(known["at"]) >= moment(newest.ended)):
            return ledger
        return ledger.with_event("backup", label=newest.label, at=newest.ended)

    def warnings(self) -> list[str]:
        """What every run tells of: what is overdue, and WAL that was given up since the newest backup."""
        found = list(overdue(self.ledger(), self.settings, datetime.now(UTC)))
        if given_up := self.given_up():
            what = (
                f"{len(given_up)} files of WAL were given up while a repository was away, the last one {given_up[-1]}"
            )
            found.append(f"{what}: moments of then cannot be restored. Make a backup now (--tags backup).")
        return found

    def told_of(self, kept: Sequence[str]) -> dict[str, str]:
        """How backups stand, each in a few words; ``kept`` are volumes that restores have replaced."""
        ledger, now = self.ledger(), datetime.now(UTC)
        newest, drill = ledger.last_event("backup"), ledger.last_event("drill")
        found = {
            "newest": f"{newest['label']}, {days(now - moment(newest['at']))} ago" if newest else "none",
            "archive": self._archive(),
            "drill": f"{drill['outcome']} {days(now - moment(drill['at']))} ago" if drill else "none",
        }
        found |= {"kept": ", ".join(kept)} if kept else {}
        return found | ({"overdue": "; ".join(late)} if (late := self.warnings()) else {})

    def _archive(self) -> str:
        if not self.running():
            return "the database does not run"
        told: Any = self.server().query(EXPOSED)
        waits = f"{told['waiting']} files of WAL wait" if told["waiting"] else "nothing waits"
        return f"writes of the last {float(told['seconds']):.0f} s are in no repository; {waits}"

    def free_mebibytes(self) -> int | None:
        """What is free where the engine keeps volumes; None where that is not on this machine."""
        with suppress(OSError):
            root = Path(str((self.engine.get("/info") or {}).get("DockerRootDir", "/nowhere")))
            return shutil.disk_usage(root).free // 2**20
        return None


def warnings(engine: DockerClient, state: State) -> list[str]:
    """What every run tells of a deployment's backups; nothing where they are off."""
    backups = ComposeBackups.of(engine, state)
    return backups.warnings() if backups else []
