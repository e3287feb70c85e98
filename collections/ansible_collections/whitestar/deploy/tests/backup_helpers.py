# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest deployment with backups: a real PostgreSQL, a repository, releases that only are recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import unprivileged
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import Repository
from ansible_collections.whitestar.deploy.tests.helpers import (
    ACCOUNT,
    COLLECTION,
    Result,
    make_workload,
    record,
    run_module,
)

QUICK = {"fsync": "off", "full_page_writes": "on", "shared_buffers": "16MB"}
ROLE = COLLECTION / "roles/titanic_backup/files"
PLANTED = "planted-value-of-a-row"


class BackedUp:
    """A state directory and a repository beside it."""

    def __init__(self, place: Path, bindir: Path, tools: Path) -> None:
        self.place = place
        self.state = State(place / "state")
        self.root = place / "backups"
        self.moments: dict[str, datetime] = {}
        self.server = PostgresServer(self.state.database, bindir, unprivileged(ACCOUNT))
        self.state.backup.mkdir(parents=True)
        (self.state.backup / "tools").symlink_to(tools)
        secrets = self.state.root / "secrets"
        secrets.mkdir(mode=0o711)
        secrets.chmod(0o711)
        for name in ("backup_key", "owner", "user"):
            (secrets / name).write_text(f"{name}-{'k' * 40}\n")
            (secrets / name).chmod(0o600)

    def settings(self, **options: Any) -> dict[str, Any]:
        """The settings of backups as the role hands them over."""
        given = {
            "site": "here",
            "repository": str(self.root),
            "key_file": str(self.state.root / "secrets/backup_key"),
            "account": ACCOUNT,
            "bindir": str(self.server.bindir),
            "compression": "zstd",
            "wal_mebibytes": 1024,
            "schedule": "daily",
            "full_days": 7,
            "keep_full": 2,
            "keep_days": 30,
            "drill_max_days": 30,
        }
        return given | options

    def prepare(self, **options: Any) -> Result:
        """Have the settings of backups in the state directory."""
        return self.run("local_backup", **self._prepared(**options))

    def prepare_to_restore(self) -> Result:
        """The same where the database may be missing."""
        return self.run("local_backup", **self._prepared(), restores=True)

    def _prepared(self, **options: Any) -> dict[str, Any]:
        program = (ROLE / "archive.py").read_text()
        return {"state": "prepared", "program": program, "settings": self.settings(**options)}

    @property
    def repository(self) -> Repository:
        return Repository.needed(self.state)

    def archiving(self) -> dict[str, str]:
        """As titanic_common has it."""
        command = self.repository.shell("push", "%p", "%f")
        return {"archive_mode": "on", "archive_command": command, "archive_timeout": "50s", "summarize_wal": "on"}

    def accounts(self) -> dict[str, str]:
        """The database and its roles as modules take them."""
        secrets = self.state.root / "secrets"
        names = {"database": "people", "owner": "people_owner", "user": "people_app"}
        return names | {f"{role}_password_file": str(secrets / role) for role in ("owner", "user")}

    def database(self) -> Result:
        """Have the database run and archive."""
        own = {"directory": str(self.state.database), "bindir": str(self.server.bindir), "account": ACCOUNT}
        return run_module("local_database", {**own, **self.accounts(), "settings": QUICK | self.archiving()})

    def deploy(self) -> None:
        """Two releases, of which the second one needs a newer schema; the database has the first one's."""
        self.state.run.mkdir(exist_ok=True)
        old = make_workload(self.state, "a" * 12, required="0001", TINY_LIVE_SCHEMA="0001")
        new = make_workload(self.state, "b" * 12, required="0002", TINY_LIVE_SCHEMA="0001")
        record(self.state, old, new)

    def run(self, module: str, /, *, check: bool = False, **options: Any) -> Result:
        return run_module(
            module, {"state_directory": str(self.state.root), "by": "alice@laptop"} | options, check=check
        )

    def backup(self, kind: str = "auto", **options: Any) -> Result:
        return self.run("local_backup", kind=kind, **options)

    def plan(self, to: str, *, check: bool = False, **options: Any) -> Result:
        """What a restore would lose."""
        own = {"state": "planned", "settings": QUICK, "archiving": self.archiving(), **self.accounts()}
        return self.run("local_restore", to=to, check=check, **own | options)

    def switch(self) -> Result:
        return self.run("local_restore", state="switched", drain_seconds=1)

    def restore(self, to: str, **options: Any) -> dict[str, Any]:
        """Plan and switch; what the switch says."""
        planned = self.plan(to, **options)
        assert not planned.failed, planned.message
        done = self.switch()
        assert not done.failed, done.message
        return dict(done["plan"])

    def drill(self, **options: Any) -> Result:
        return self.run("local_drill", database="people", settings=QUICK, **options)

    def write(self, text: str) -> datetime:
        """A row, which is acknowledged; a moment after that."""
        self.server.run_sql(f"INSERT INTO people (name) VALUES ('{text}')", "people")
        self.moments[text] = datetime.now(UTC)
        return self.moments[text]

    def names(self) -> list[str]:
        """All rows of the live database."""
        found: Any = self.server.query("SELECT coalesce(json_agg(name ORDER BY id), '[]') FROM people", "people")
        return list(found)

    def fill(self) -> None:
        """Tables with rows, one of which must be found nowhere in clear."""
        self.server.run_sql(
            "CREATE TABLE people (id serial PRIMARY KEY, name text NOT NULL); CREATE INDEX ON people (name);"
            f"INSERT INTO people (name) VALUES ('{PLANTED}');"
            'CREATE TABLE "Odd \'name" AS SELECT n, md5(n::text) AS text FROM generate_series(1, 20000) n',
            "people",
        )

    def end(self) -> None:
        """Stop what runs."""
        self.server.stop()
