# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that differ from what was recorded of them. A host knows whose a process is and when it began."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import Difference
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Process
from ansible_collections.whitestar.deploy.plugins.module_utils.host.drift import account, moment
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import command_line
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS


def processes_drift(state: State, workload: Mapping[str, Any]) -> Iterator[Difference]:
    """Processes that do not run, or are not what was recorded."""
    if state.daemon("caddy").process() is None:
        yield Difference("process caddy", said="does not run", **_ended(state, "caddy"))
    supervisor = state.daemon("supervisor")
    if supervisor.facts() and supervisor.process() is None:
        yield Difference("process supervisor", said="does not run", **_ended(state, "supervisor"))
    for name in ("caddy", *COLOURS):
        daemon = state.daemon(name)
        process, facts = daemon.process(), daemon.facts()
        if process is None:
            continue
        who = started(process)
        if (process.pid, process.started) != (facts.get("pid"), facts.get("started")):
            yield Difference(f"process {name}", "pid", facts.get("pid"), process.pid, **who)
        if facts.get("release") == workload["release"]:
            yield from _environment(name, process, workload, who)


def _ended(state: State, name: str) -> dict[str, str]:
    """When it printed last, which is as near to its end as anybody knows."""
    with suppress(OSError):
        return {"at": moment(state.daemon(name).log.stat().st_mtime)}
    return {}


def _environment(
    name: str, process: Process, workload: Mapping[str, Any], who: Mapping[str, str]
) -> Iterator[Difference]:
    """Whether a process has the program and the variables of its release; others it may have beside them."""
    place = Path(f"/proc/{process.pid}")
    try:
        words = (place / "cmdline").read_text(errors="replace").split("\0")
        pairs = (place / "environ").read_text(errors="replace").split("\0")
    except OSError:
        return
    wanted = command_line(workload["image"], workload["command"])[0]
    if wanted not in words:
        yield Difference(f"process {name}", "command", wanted, " ".join(words).strip(), **who)
    live = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    for key, value in sorted(workload["environment"].items()):
        if live.get(key) != str(value):
            yield Difference(f"process {name}", f"environment.{key}", str(value), live.get(key), **who)


def started(process: Process) -> dict[str, str]:
    """Whose a process is and since when it runs, as the fields of a Difference."""
    try:
        uid = Path(f"/proc/{process.pid}").stat().st_uid
        up = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    except OSError:
        return {}
    # Clock ticks are hundredths of a second on Linux, whatever the kernel's own are (USER_HZ, time(7)).
    return {"by": account(uid), "at": moment(time.time() - up + process.started / 100)}
