# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts again what has ended by itself on a local target: PostgreSQL, the reverse proxy, the release that serves.

``python3 supervise.py STATE_DIRECTORY BINDIR``, where BINDIR has PostgreSQL's programs. It stays on the target and
needs nothing but Python. It starts what the records there say, as it was started last, and nothing while the deployment
is stopped. During a run it leaves the release to that, and PostgreSQL and the reverse proxy to a step that is at
work on them. There is one for each state directory: a second one ends at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROUND_SECONDS = 1.0
# After each vain start it waits twice as long, up to the longest; what has run for that long begins anew.
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
START_SECONDS = 60
COLOURS = ("blue", "green")
MARK = "WHITESTAR_PROCESS"


class BusyError(RuntimeError):
    """Somebody else is at work."""


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None if it is gone or a zombie (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def read(path: Path) -> dict[str, Any]:
    """What is recorded; nothing where it cannot be read."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def write(path: Path, facts: dict[str, Any]) -> None:
    """Replace a record. Raises OSError."""
    new = path.with_name(f".{path.name}.supervise")
    new.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """As each step of a run does, be the only one at work in a directory. Raises BusyError, OSError."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BusyError from None
    finally:
        os.close(handle)


class Supervisor:
    """Looks after one state directory."""

    def __init__(self, state: Path, bindir: Path) -> None:
        self.state = state
        self.bindir = bindir
        self.run = state / "run"
        # Of each part: how long to wait after the next vain start, and until when nothing is tried.
        self.pauses: dict[str, tuple[float, float]] = {}
        self.children: list[subprocess.Popen[bytes]] = []

    def look(self) -> None:
        """One round."""
        self.children = [child for child in self.children if child.poll() is None]
        own = read(self.run / "supervisor.json")
        if own and own.get("pid") != os.getpid():
            # Started at boot rather than by a run, which is to find it.
            write(self.run / "supervisor.json", own | {"pid": os.getpid(), "started": started(os.getpid())})
        if not self.deployed():
            return
        self.keep("postgresql", self.database_ended, self.start_database, self.state / "database", self.deployed)
        # As local_daemon has it: a switch, which takes its time, is at work in run/.
        own_place = self.run / ".caddy.lock"
        own_place.mkdir(exist_ok=True)
        self.keep("caddy", lambda: self.ended("caddy"), lambda: self.start("caddy"), own_place, self.deployed)
        for name in COLOURS:
            self.keep(
                name, lambda name=name: self.ended(name), lambda name=name: self.start(name), self.run, self.no_run
            )

    def deployed(self) -> bool:
        """Whether there is a deployment, and nobody has stopped it."""
        return (self.state / "ledger.json").exists() and not (self.state / "stopped.json").exists()

    def no_run(self) -> bool:
        """Whether there is a deployment that nobody has stopped, and no run is at work."""
        if not self.deployed():
            return False
        holder = read(self.state / "lock.json")
        if not holder:
            return True
        if holder.get("host") == socket.gethostname():
            return started(int(holder["pid"])) != int(holder["started"])
        return time.time() > float(holder.get("until", 0))

    def keep(self, name: str, ended: Any, start: Any, directory: Path, may_act: Any) -> None:
        """Start a part that has ended, if it may be, unless it was tried in vain a short while ago."""
        seconds, until = self.pauses.get(name, (SHORTEST_SECONDS, 0.0))
        now = time.monotonic()
        if now < until or not may_act() or not ended():
            return
        if now > until + LONGEST_SECONDS:
            seconds = SHORTEST_SECONDS
        try:
            with alone(directory):
                # It may have been started, taken away or stopped meanwhile.
                if not (may_act() and ended()):
                    return
                start()
            told = "has ended; it is started again"
        except BusyError:
            return
        except (OSError, subprocess.SubprocessError) as error:
            told = f"has ended and cannot be started ({error}); the next time in {seconds:g} s"
        say(f"{name} {told}")
        self.pauses[name] = (min(2 * seconds, LONGEST_SECONDS), time.monotonic() + seconds)

    def ended(self, name: str) -> bool:
        """Whether a process that is recorded has ended, and is one that should run."""
        facts = read(self.run / f"{name}.json")
        if "argv" not in facts or started(int(facts["pid"])) == facts["started"]:
            return False
        return name not in COLOURS or (self.serves(facts) and not (self.run / name / "drain").exists())

    def serves(self, facts: dict[str, Any]) -> bool:
        """Whether it is the release of the ledger's newest success."""
        entries = read(self.state / "ledger.json").get("entries", [])
        current = next((entry["release"] for entry in reversed(entries) if entry["outcome"] == "succeeded"), None)
        return bool(facts.get("release") == current)

    def start(self, name: str) -> None:
        """Start a process as it was started last, and record it. Raises OSError."""
        path = self.run / f"{name}.json"
        facts = read(path)
        environment = facts["environment"] | {MARK: str(path)}
        account: dict[str, Any] = {}
        if facts.get("owner"):
            account = {"user": facts["owner"][0], "group": facts["owner"][1], "extra_groups": []}
        if pid := unrecorded(f"{MARK}={path}"):
            write(path, facts | {"pid": pid, "started": started(pid)})
            return
        # What the one before has left.
        if place := environment.get("TITANIC_BIND", "").partition("unix:")[2]:
            Path(place).unlink(missing_ok=True)
        # The directory stays, with its owner and mode.
        for file in Path(environment.get("TITANIC_METRICS_DIRECTORY", "/nonexistent")).glob("*.db"):
            file.unlink()
        with (self.state / "log" / f"{name}.log").open("ab") as output:
            child = subprocess.Popen(
                facts["argv"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
                **account,
            )
        self.children.append(child)
        try:
            write(path, facts | {"pid": child.pid, "started": started(child.pid)})
        except OSError:
            # What nobody knows of must not run.
            child.kill()
            raise

    def database_ended(self) -> bool:
        """Whether there is a database whose server does not run."""
        data = self.state / "database" / "data"
        if not (data / "PG_VERSION").is_file():
            return False
        try:
            pid = int((data / "postmaster.pid").read_text().split()[0])
            return Path(f"/proc/{pid}/comm").read_text().strip() != "postgres" or started(pid) is None
        except (OSError, ValueError, IndexError):
            return True

    def start_database(self) -> None:
        """Start it as the account that the data belong to. Raises OSError, SubprocessError."""
        place = self.state / "database"
        owner = (place / "data").stat()
        account: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        words = ["--wait", "--timeout", str(START_SECONDS), "--silent", "--log", str(place / "log" / "start.log")]
        done = subprocess.run(
            [str(self.bindir / "pg_ctl"), "start", "--pgdata", str(place / "data"), *words],
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC", "HOME": str(place)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            check=False,
            timeout=2 * START_SECONDS,
            **account,
        )
        if done.returncode:
            raise subprocess.SubprocessError(f"pg_ctl ended with {done.returncode}, see {place / 'log'}")


def unrecorded(mark: str) -> int | None:
    """The process with this in its environment that leads a session, as one that was started and not recorded."""
    for directory in Path("/proc").glob("[0-9]*"):
        pid = int(directory.name)
        with suppress(OSError):
            marked = mark.encode() in (directory / "environ").read_bytes().split(b"\0")
            if marked and os.getsid(pid) == pid and started(pid) is not None:
                return pid
    return None


def say(line: str) -> None:
    """A line with the time; the disk may be full."""
    with suppress(OSError):
        print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), line, flush=True)


def main() -> None:
    """Look after the state directory until told to end."""
    supervisor = Supervisor(Path(sys.argv[1]), Path(sys.argv[2]))
    guard = os.open(supervisor.run / ".supervisor", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another one looks after it")
        return
    say("looks after it")
    while supervisor.state.is_dir():
        try:
            supervisor.look()
        except (OSError, ValueError, KeyError) as error:
            say(f"cannot look: {error!r}")
        time.sleep(ROUND_SECONDS)


if __name__ == "__main__":
    main()
