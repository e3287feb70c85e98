# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The local target: its state directory, and the two colours as processes on unix sockets."""

from __future__ import annotations

import hmac
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.files import (
    json_bytes,
    read_json,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.http import Answer, try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.ledger import Entry, Ledger
from ansible_collections.whitestar.deploy.plugins.module_utils.process import Daemon, service_environment
from ansible_collections.whitestar.deploy.plugins.module_utils.switch import COLOURS, ReleaseError

# The front door asks each colour for its readiness this often (templates/Caddyfile.j2 has the same figure): after
# three of them it has certainly seen a change.
HEALTH_INTERVAL_SECONDS = 0.2
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
    def images(self) -> Path:
        """Release directories, named by the hash of what is in them."""
        return self.root / "images"

    @property
    def configurations(self) -> Path:
        """The workload of each recorded release."""
        return self.root / "releases"

    @property
    def database(self) -> Path:
        """The database cluster's data, socket and logs."""
        return self.root / "database"

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
        write_atomically(self.root / "ledger.json", json_bytes(ledger.document()), 0o644)

    def daemon(self, name: str) -> Daemon:
        """The background process of this name."""
        return Daemon(self.run, name, self.logs / f"{name}.log")

    def address(self, colour: str) -> str:
        """Where a colour listens."""
        return f"unix:{self.run / colour}.sock"

    def drain_file(self, colour: str) -> Path:
        """While it exists the colour answers its readiness with 503."""
        return self.run / f"{colour}.drain"

    def longest_socket(self) -> Path:
        """The longest path of a socket below the state directory."""
        return self.database / "run" / ".s.PGSQL.5432.lock"


class LocalColours:
    """The two colours as gunicorn processes. ``command`` is relative to the image's ``bin`` directory."""

    def __init__(
        self,
        state: State,
        workload: Mapping[str, Any],
        fingerprint: str,
        ready_seconds: float,
        drain_seconds: float,
    ) -> None:
        self.state = state
        self.workload = workload
        self.fingerprint = fingerprint
        self.ready_seconds = ready_seconds
        self.drain_seconds = drain_seconds

    def serving(self, colour: str) -> bool:
        """Whether the colour runs and is ready."""
        answer = try_request(self.state.address(colour), self.workload["probes"]["ready"])
        return answer is not None and answer.status == 200

    def in_charge(self) -> str | None:
        """The colour that should get requests now: running, not being drained, and ready rather than newly started.

        A run that was killed can leave a newer colour that never got ready; the older one has the requests then.
        """
        running = [
            colour
            for colour in COLOURS
            if self.state.daemon(colour).process() and not self.state.drain_file(colour).exists()
        ]
        started = {colour: self.state.daemon(colour).facts().get("at", 0.0) for colour in running}
        return max(running, key=lambda colour: (self.serving(colour), started[colour]), default=None)

    def start(self, colour: str) -> None:
        """Start the workload as this colour; what an interrupted run left there may have requests and is drained."""
        daemon = self.state.daemon(colour)
        if daemon.process():
            self.drain(colour)
        daemon.stop(self.drain_seconds)
        metrics = self.state.run / f"{colour}.metrics"
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir()
        (self.state.run / f"{colour}.sock").unlink(missing_ok=True)
        self.state.drain_file(colour).unlink(missing_ok=True)
        own = {
            "TITANIC_BIND": self.state.address(colour),
            "TITANIC_DRAIN_FILE": self.state.drain_file(colour),
            "TITANIC_METRICS_DIRECTORY": metrics,
        }
        daemon.start(
            command_line(self.workload),
            service_environment(self.workload["environment"] | own),
            {"release": self.workload["release"], "fingerprint": self.fingerprint, "at": time.time()},
        )

    def wait_until_ready(self, colour: str) -> None:
        """Wait for readiness. Raises ReleaseError with the last words of the release."""
        daemon = self.state.daemon(colour)
        path = self.workload["probes"]["ready"]
        deadline = time.monotonic() + self.ready_seconds
        while True:
            answer = try_request(self.state.address(colour), path)
            if answer and answer.status == 200:
                return
            if not daemon.process():
                raise ReleaseError(f"it ended at once; its last output:\n{daemon.log_tail()}")
            if time.monotonic() > deadline:
                raise ReleaseError(
                    f"{path} did not answer 200 within {self.ready_seconds:g} s (last: {_words(answer)}); "
                    f"its last output:\n{daemon.log_tail()}"
                )
            time.sleep(0.05)

    def drain(self, colour: str) -> None:
        """Make the colour unready, wait until the front door must have seen it."""
        self.state.drain_file(colour).touch()
        time.sleep(3 * HEALTH_INTERVAL_SECONDS)

    def stop(self, colour: str) -> None:
        """Stop the colour; gunicorn finishes what it has accepted within its graceful timeout."""
        self.state.daemon(colour).stop(self.drain_seconds)
        (self.state.run / f"{colour}.sock").unlink(missing_ok=True)
        self.state.drain_file(colour).unlink(missing_ok=True)


def recorded_workload(state: State, entry: Entry | None) -> dict[str, Any]:
    """The workload that a ledger entry served with. Raises ReleaseError if it has been removed."""
    found = read_json(state.configurations / f"{entry.release}.json", None) if entry else None
    if not isinstance(found, dict) or not Path(found["image"]).is_dir():
        name = entry.release if entry else "of an unknown entry"
        raise ReleaseError(f"release {name} is recorded, but its directory or workload is gone: choose another release")
    return found


def command_line(workload: Mapping[str, Any]) -> list[str]:
    """The workload's command with its program taken from the image."""
    return [str(Path(workload["image"]) / "bin" / workload["command"][0]), *workload["command"][1:]]


def fingerprint(state: State, paths: Sequence[str], *, check: bool) -> str:
    """A keyed hash (hex) of these files' contents, which tells that a secret changed and nothing about it.

    The key is random and stays in the state directory's ``secrets`` folder. With ``check`` none is made: empty then.
    """
    key_file = state.root / "secrets" / ".fingerprint-key"
    if not key_file.exists():
        if check:
            return ""
        key_file.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(key_file, secrets.token_bytes(32), 0o600)
    digest = hmac.new(key_file.read_bytes(), digestmod="sha256")
    for path in sorted(paths):
        content = Path(path).read_bytes()
        digest.update(f"{len(content)} ".encode() + content)
    return digest.hexdigest()


def _words(answer: Answer | None) -> str:
    return "no answer" if answer is None else f"{answer.status} {answer.body[:300].decode(errors='replace')}"
