# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Background processes that outlive the play: started once, found again, never mistaken for another."""

from __future__ import annotations

import errno
import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import read_json, write_json

LOG_TAIL_LINES = 15
# In the environment of every process that we start, so that one can be told even if it was never recorded.
MARK = "WHITESTAR_PROCESS"


@dataclass(frozen=True)
class Process:
    """A process by pid and start time (clock ticks since boot), so that a reused pid is not taken for it."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The live process with this pid; None if there is none or it is a zombie."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in {"Z", "X"} else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Process.of(self.pid) == self

    def stop(self, grace_seconds: float) -> bool:
        """Ask with SIGTERM, wait ``grace_seconds``, then SIGKILL the process group. True if the request was enough."""
        self._signal(signal.SIGTERM)
        if self.wait(grace_seconds):
            return True
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(5)
        return False

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, at most ``seconds``; whether it has."""
        deadline = time.monotonic() + seconds
        while self.alive():
            with suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if self.alive():
                os.kill(self.pid, number)


class Daemon:
    """One named background process, remembered in ``directory`` as ``NAME.json``, its output in ``log``."""

    def __init__(self, directory: Path, name: str, log: Path) -> None:
        self.record = directory / f"{name}.json"
        self.log = log

    def process(self) -> Process | None:
        """The process if it runs, also when a run was killed between starting and recording it."""
        facts = self.facts()
        known = Process(facts["pid"], facts["started"]) if facts else None
        return known if known and known.alive() else self._unrecorded()

    def _unrecorded(self) -> Process | None:
        mark = f"{MARK}={self.record}".encode()
        for directory in Path("/proc").glob("[0-9]*"):
            pid = int(directory.name)
            with suppress(OSError):
                if mark in (directory / "environ").read_bytes().split(b"\0") and os.getsid(pid) == pid:
                    return Process.of(pid)
        return None

    def facts(self) -> dict[str, Any]:
        """What was recorded at its start: pid, started, argv, environment, owner, labels. Empty if it never was."""
        found = read_json(self.record, {})
        return found if isinstance(found, dict) else {}

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        labels: Mapping[str, Any],
        owner: tuple[int, int] | None = None,
    ) -> Process:
        """Start ``command`` in a session of its own with exactly this environment, and record it with ``labels``.

        It runs as ``owner`` (uid, gid), in no other group, or as ourselves.

        It is nobody's child: who ends this run and all that it has started does not end it. Raises OSError when the
        program cannot be started.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.log"))
        pid = _start_for_good(list(command), dict(environment) | {MARK: str(self.record)}, self.log, owner)
        process = Process.of(pid) or Process(pid, 0)
        how = {"argv": list(command), "environment": dict(environment), "owner": list(owner) if owner else None}
        facts = {**labels, **how, "pid": process.pid, "started": process.started}
        write_json(self.record, facts)
        return process

    def restart(self) -> Process | None:
        """Start it, which does not run, as it was started last; None where that is not recorded. Raises OSError."""
        facts = self.facts()
        if "argv" not in facts:
            return None
        owner = facts.get("owner")
        return self.start(facts["argv"], facts["environment"], facts, (owner[0], owner[1]) if owner else None)

    def label(self, labels: Mapping[str, Any]) -> None:
        """Change labels of what is recorded."""
        write_json(self.record, self.facts() | dict(labels))

    def stop(self, grace_seconds: float) -> bool:
        """Stop it if it runs and forget it. True if something was stopped."""
        process = self.process()
        if process:
            process.stop(grace_seconds)
        self.record.unlink(missing_ok=True)
        return process is not None

    def log_tail(self, count: int = LOG_TAIL_LINES) -> str:
        """The last lines of its output, for error messages."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "(no output)"
        return "\n".join(lines[-count:]) or "(no output)"


def _start_for_good(command: list[str], environment: dict[str, str], log: Path, owner: tuple[int, int] | None) -> int:
    """Start a program whose parent is gone once it runs, its output in ``log``; its pid. Raises OSError."""
    answer, told = os.pipe()
    parent = os.fork()
    if parent == 0:
        said = b""
        try:
            with log.open("ab") as output:
                child = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    cwd="/",
                    **as_owner(owner),
                )
            said = b"%d" % child.pid
        except OSError as error:
            said = json.dumps([error.errno, error.strerror, error.filename]).encode()
        finally:
            os.write(told, said)
            os._exit(0)
    os.close(told)
    with os.fdopen(answer, "rb") as stream:
        said = stream.read()
    os.waitpid(parent, 0)
    if not said:
        raise OSError(errno.EINTR, os.strerror(errno.EINTR), command[0])
    found = json.loads(said)
    if isinstance(found, list):
        raise OSError(*found)
    return int(found)


def service_environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """The whole environment of a deployed program: a plain PATH and locale, time zone UTC, and ``settings`` as text."""
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"} | {
        key: str(value) for key, value in settings.items()
    }


def instead_of_root(uid: int) -> tuple[int, int] | None:
    """(uid, gid) for a program that is to be ``uid`` when we are root, None otherwise. No account need have it."""
    return (uid, uid) if os.geteuid() == 0 else None


def unprivileged(account: str) -> tuple[int, int] | None:
    """(uid, gid) of ``account`` when we are root, None otherwise: who is not root stays who they are.

    Raises ValueError if the account does not exist.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(account)
    except KeyError as error:
        raise ValueError(f"there is no account '{account}' on this machine to run as instead of root") from error
    return entry.pw_uid, entry.pw_gid


def as_owner(owner: tuple[int, int] | None) -> dict[str, Any]:
    """Arguments of ``subprocess`` to run a program as ``owner`` (uid, gid), in no other group, or as ourselves."""
    return {"user": owner[0], "group": owner[1], "extra_groups": []} if owner else {}


def run_json(
    command: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    owner: tuple[int, int] | None = None,
    descriptors: Collection[int] = (),
) -> tuple[int, Any, str]:
    """Run ``command`` and read its standard output as JSON: (exit code, value or None, standard error).

    It runs as ``owner`` (uid, gid), or as ourselves, and inherits these ``descriptors``.

    Raises subprocess.TimeoutExpired after ``seconds`` and OSError if it cannot be started.
    """
    done = subprocess.run(
        list(command),
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd="/",
        pass_fds=descriptors,
        **as_owner(owner),
    )
    value = None
    with suppress(ValueError):
        value = json.loads(done.stdout)
    return done.returncode, value, done.stderr.strip()
