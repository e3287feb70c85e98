# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state directory of a host: one place for everything that a deployment on it makes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    exclusively,
    make_directory,
    read_json,
    write_atomically,
    write_json,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Daemon
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import FAILURE_REPORTS_KEPT, Ledger
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import Rotation, with_login
from ansible_collections.whitestar.deploy.plugins.module_utils.release.stopped import Stopped

# The option of modules whose failure ends a release before it can be started.
FAILURE_OPTION: dict[str, Any] = {
    "type": "dict",
    "options": {"state_directory": {"type": "path", "required": True}, "by": {"type": "str", "required": True}},
}
STOPPED = "stopped.json"
ROTATION = "rotation.json"
SOCKET_PATH_LIMIT = 107  # sun_path in unix(7) has 108 bytes with its final NUL


@dataclass(frozen=True)
class State:
    """The state directory of a local target: one place for everything that a deployment makes."""

    root: Path

    @property
    def run(self) -> Path:
        """Sockets, pid records and drain files."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """What the programs print."""
        return self.root / "log"

    @property
    def counts(self) -> Path:
        """What replicas of a release count together."""
        return self.run / "counts"

    @property
    def images(self) -> Path:
        """Release directories, named by the hash of what is in them."""
        return self.root / "images"

    @property
    def configurations(self) -> Path:
        """The workload of each recorded release."""
        return self.root / "releases"

    @property
    def failure_reports(self) -> Path:
        """What failed releases left as evidence."""
        return self.root / "capsules"

    @property
    def answers(self) -> Path:
        """What commands of releases answered last, such as ``migrate.json``."""
        return self.root / "answers"

    @property
    def front(self) -> Path:
        """What the reverse proxy keeps: certificates that it got or made, its admin socket, a maintenance's words."""
        return self.root / "front"

    @property
    def database(self) -> Path:
        """The database cluster's data, socket and logs."""
        return self.root / "database"

    @property
    def backup(self) -> Path:
        """The settings of backups, and the program that encrypts them."""
        return self.root / "backup"

    def backup_settings(self) -> dict[str, Any]:
        """Where backups go and how; empty where they are off. Raises ValueError if that cannot be read."""
        found = read_json(self.backup / "settings.json", {})
        return found if isinstance(found, dict) else {}

    @property
    def lock(self) -> Path:
        """The deploy lock's file."""
        return self.root / "lock.json"

    def ledger(self) -> Ledger:
        """The ledger, empty before the first release. Raises ValueError if it cannot be read."""
        kept = [path.stem for path in self.configurations.glob("*.json")]
        return Ledger.from_document(read_json(self.root / "ledger.json", {}), kept)

    def write_ledger(self, ledger: Ledger) -> None:
        """Replace the ledger."""
        write_json(self.root / "ledger.json", ledger.document())

    def stopped(self) -> Stopped | None:
        """By whom and since when it is stopped, if it is. Raises ValueError if that cannot be read."""
        found = read_json(self.root / STOPPED, None)
        return Stopped(**found) if found else None

    def write_stopped(self, stopped: Stopped) -> None:
        """Record that it is."""
        write_json(self.root / STOPPED, asdict(stopped))

    def forget_stopped(self) -> None:
        """A release is being started."""
        (self.root / STOPPED).unlink(missing_ok=True)

    def rotation(self) -> Rotation:
        """What rotations of secrets have come to. Raises ValueError if that cannot be read."""
        try:
            return Rotation.of_document(read_json(self.root / ROTATION, None))
        except TypeError as error:
            raise ValueError(f"{self.root / ROTATION} is not readable ({error}). Restore it.") from error

    def write_rotation(self, rotation: Rotation) -> None:
        """Record it."""
        write_json(self.root / ROTATION, rotation.document())

    def secrets(self) -> Iterator[tuple[str, str]]:
        """Every file below ``secrets``, by its own name. Raises OSError."""
        for path in (self.root / "secrets").rglob("[!.]*"):
            if path.is_file():
                yield path.name, path.read_text(encoding="utf-8", errors="replace")

    def store_failure_report(self, name: str, text: str) -> str:
        """Write the evidence of a failed release for its owner alone; the path. Raises OSError."""
        make_directory(self.failure_reports, 0o700)
        path = self.failure_reports / f"{name}.txt"
        write_atomically(path, text.encode(), 0o600)
        for old in sorted(self.failure_reports.glob("*.txt"))[:-FAILURE_REPORTS_KEPT]:
            old.unlink()
        return str(path)

    def exclusively(self) -> AbstractContextManager[None]:
        """Be the only step at work here. Raises TimeoutError."""
        return exclusively(self.run)

    def exclusively_of(self, name: str) -> AbstractContextManager[None]:
        """Be the only one who starts or stops a process, as the supervisor may during a run. Raises TimeoutError."""
        return exclusively(self.run / f".{name}.lock")

    def recorded(self, release: str) -> dict[str, Any]:
        """The workload of a release as it was recorded; empty if it is not kept. Raises ValueError."""
        found = read_json(self.configurations / f"{release}.json", {})
        return found if isinstance(found, dict) else {}

    def workload(self, release: str) -> dict[str, Any]:
        """The workload that a recorded release serves with now, whose login is that of the last rotation.

        Empty if it is not kept. Raises ValueError.
        """
        return with_login(self.recorded(release), self.rotation().login)

    def image(self, reference: str) -> dict[str, Any]:
        """``identity`` and ``description`` of an image, as far as they were recorded here."""
        for path in self.images.glob("*/image.json"):
            with suppress(ValueError):
                found = read_json(path, {})
                if reference in (found.get("reference"), str(path.parent)):
                    description = found.get("description", {})
                    known = json.loads(description) if isinstance(description, str) else description
                    return {"identity": path.parent.name, "description": known}
        return {"identity": reference.rpartition(":")[2][:12], "description": {}}

    def daemon(self, name: str) -> Daemon:
        """The background process of this name."""
        return Daemon(self.run, name, self.logs / f"{name}.log")

    def address(self, colour: str) -> str:
        """Where a colour listens."""
        return f"unix:{self.run / colour}.sock"

    def drain_file(self, colour: str) -> Path:
        """While it exists the colour answers its readiness with 503."""
        return self.run / colour / "drain"

    def longest_socket(self) -> Path:
        """The longest path of a socket below the state directory."""
        return self.database / "run" / ".s.PGSQL.5432.lock"


def records_of(failure: Mapping[str, Any]) -> AbstractContextManager[State]:
    """Where the target of FAILURE_OPTION keeps its records."""
    return nullcontext(State(Path(failure["state_directory"])))
