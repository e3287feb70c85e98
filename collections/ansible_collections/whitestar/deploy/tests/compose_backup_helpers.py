# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest Compose deployment with backups: PostgreSQL and pgBackRest in containers, releases that are recorded."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.docker.backups import ACCOUNT, ComposeBackups
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.psql import ContainerServer
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.tests.engine_helpers import keep_service
from ansible_collections.whitestar.deploy.tests.helpers import (
    COLLECTION,
    Result,
    record,
    run_module,
    tiny_workload,
)

IMAGE = COLLECTION / "roles/titanic_backup/files/image"
PLANTED = "planted-value-of-a-row"
KEY = f"planted-key-{'k' * 40}"
SOCKETS = {"driver": "local", "driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": "mode=0755,uid=999,gid=999"}}


class ContainerBackedUp:
    """A state directory, a project, and repositories beside them."""

    def __init__(self, place: Path, engine: dict[str, Any], image: str, release: str) -> None:
        self.place, self.options, self.image, self.release = place, engine, image, release
        self.engine, self.state = DockerClient.of(engine), State(place / "state")
        self.root = place / "backups"
        self.repositories: list[dict[str, Any]] = [{"type": "directory", "path": str(self.root)}]
        self.secrets = self.state.root / "secrets"
        (self.secrets / "backup").mkdir(parents=True)
        os.chown(self.secrets / "backup", ACCOUNT, ACCOUNT)
        for name in ("backup_key", "owner", "user", "superuser"):
            self.secret(name, KEY if name == "backup_key" else f"hunter2-{name}")

    def secret(self, name: str, value: str) -> None:
        """A secret as titanic_secrets writes it."""
        path = self.secrets / ("backup" if name.startswith("backup") else "") / name
        path.write_text(f"{value}\n")
        path.chmod(0o600)
        if name.startswith(("backup", "superuser")):
            os.chown(path, ACCOUNT, ACCOUNT)

    @property
    def reaches_out(self) -> bool:
        return any(place["type"] == "s3" for place in self.repositories)

    def mounts(self) -> list[str]:
        """As the role has them."""
        own = [
            f"{self.state.backup}/pgbackrest:/etc/titanic-backup:ro",
            f"{self.state.backup}/notes:/var/lib/titanic-backup",
            f"{self.secrets}/backup:/run/titanic-backup:ro",
        ]
        places = enumerate(self.repositories, 1)
        return own + [f"{p['path']}:/var/lib/titanic-repository/{n}" for n, p in places if p["type"] == "directory"]

    def settings(self, **options: Any) -> dict[str, Any]:
        """The settings of backups as the role hands them over."""
        given = {
            "site": "here",
            "image": self.image,
            "repositories": self.repositories,
            "mounts": self.mounts(),
            "key_file": str(self.secrets / "backup/backup_key"),
            "reaches_out": self.reaches_out,
            "compression": "zstd",
            "wal_mebibytes": 1024,
            "schedule": "daily",
            "full_days": 7,
            "keep_full": 2,
            "keep_days": 30,
            "drill_max_days": 30,
        }
        return given | options

    def run(self, module: str, /, *, check: bool = False, **options: Any) -> Result:
        own = {"state_directory": str(self.state.root), "engine": self.options}
        return run_module(module, own | options, check=check)

    def prepare(self, *, restores: bool = False, check: bool = False, **options: Any) -> Result:
        given = {"state": "prepared", "settings": self.settings(**options), "restores": restores}
        return self.run("compose_backup", check=check, **given)

    def accounts(self) -> dict[str, str]:
        names = {"database": "people", "owner": "people_owner", "user": "people_app"}
        return names | {f"{role}_password_file": str(self.secrets / role) for role in ("owner", "user")}

    def database(self) -> None:
        """Have the database run and archive, and the schedule run, as the roles have them."""
        networks = ["data", *(["backup"] if self.reaches_out else [])]
        settings = {"archive_mode": "on", "archive_command": "titanic-pgbackrest push %p %f", "archive_timeout": "50s"}
        sockets = "database-sockets:/var/run/postgresql"
        definition = {
            "user": "999:999",
            "command": ["postgres", "--fsync=off", *(f"--{key}={value}" for key, value in settings.items())],
            "networks": networks,
            "stop_grace_period": "60s",
            "tmpfs": ["/tmp:mode=1777,noexec,nosuid"],
            "volumes": ["database:/var/lib/postgresql/data", *self.mounts(), sockets],
            "environment": {
                "POSTGRES_PASSWORD_FILE": str(self.secrets / "superuser"),
                "POSTGRES_INITDB_ARGS": "--auth-host=scram-sha-256 --no-sync",
            },
            "healthcheck": {
                "test": ["CMD", "pg_isready", "--quiet", "--host=127.0.0.1", "--username=postgres"],
                "interval": "10s",
                "start_period": "60s",
                "start_interval": "500ms",
            },
        }
        volumes = {"database": {}, "database-sockets": SOCKETS}
        given: dict[str, Any] = {"image": self.image, "volumes": volumes, "postgresql_volume": "database"}
        secrets = {"superuser": str(self.secrets / "superuser")}
        self.keep(given | {"name": "database", "definition": definition, "secret_files": secrets})
        done = run_module("compose_database", {"engine": self.options, **self.accounts()})
        assert not done.failed, done.message
        schedule = {
            "user": "999:999",
            "command": ["titanic-pgbackrest", "schedule"],
            "init": True,
            "networks": networks[-1:],
            "tmpfs": ["/tmp:mode=1777,noexec,nosuid"],
            "volumes": ["database:/var/lib/postgresql/data:ro", *self.mounts(), sockets],
        }
        self.keep(given | {"name": "backup", "definition": schedule})

    def keep(self, service: dict[str, Any]) -> None:
        """Have a service of the project as it should be."""
        done = keep_service(self.state.root, self.options, service)
        assert not done.failed, done.message

    @property
    def backups(self) -> ComposeBackups:
        return ComposeBackups.needed(self.engine, self.state)

    @property
    def server(self) -> ContainerServer:
        return self.backups.server()

    def deploy(self) -> None:
        """A release that has served."""
        self.state.run.mkdir(exist_ok=True)
        record(self.state, tiny_workload(self.release, "a" * 12, TINY_LIVE_SCHEMA="0001"))

    def backup(self, kind: str = "auto", **options: Any) -> Result:
        return self.run("compose_backup", kind=kind, by="alice@laptop", **options)

    def plan(self, to: str, *, check: bool = False, **options: Any) -> Result:
        own = {"state": "planned", "settings": {"fsync": "off"}, "by": "alice@laptop", **self.accounts()}
        return self.run("compose_restore", to=to, check=check, **own | options)

    def restore(self, to: str, **options: Any) -> dict[str, Any]:
        """Plan, switch and start; what the switch says."""
        planned = self.plan(to, **options)
        assert not planned.failed, planned.message
        done = self.run("compose_restore", state="switched", drain_seconds=1)
        assert not done.failed, done.message
        self.database()
        return dict(done["plan"])

    def drill(self, **options: Any) -> Result:
        return self.run("compose_drill", database="people", settings={}, by="alice@laptop", **options)

    def write(self, text: str) -> datetime:
        """A row, which is acknowledged; a moment after that."""
        self.server.run_sql(f"INSERT INTO people (name) VALUES ('{text}')", "people")
        return datetime.now(UTC)

    def names(self) -> list[str]:
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
