# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs on a host from what was applied: files, processes or containers, and what runs that should not.

A host knows who a file belongs to and when it was changed, whose a process is and when it began, and when a container
was made, started or stopped; an engine does not know by whom.
"""

from __future__ import annotations

import pwd
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import edited
from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import Difference
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import read_json
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Process, instead_of_root
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import LABEL, SERVICE_LABEL, Engine
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project, other_variables
from ansible_collections.whitestar.deploy.plugins.module_utils.host.blue_green import HostColours
from ansible_collections.whitestar.deploy.plugins.module_utils.host.runtime import Runtime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State, fingerprint
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import command_line
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS

UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}
Container = Mapping[str, Any]


def moment(seconds: float) -> str:
    """A time as the engine and the ledger write it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def account(uid: int) -> str:
    """The name of an account; its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def touched(path: Path) -> dict[str, str]:
    """Who may have changed a file, and when, as the fields of a Difference; nothing of one that is gone."""
    try:
        found = path.stat()
    except OSError:
        return {}
    who = account(found.st_uid)
    return {"by": f"{who} or root" if found.st_uid else who, "at": moment(found.st_mtime)}


def files_drift(state: State, workload: Mapping[str, Any], *, containers: bool) -> Iterator[Difference]:
    """Files of ours that were edited, and secrets that others may read or that belong to another. Raises OSError."""
    for directory in (state.root, state.root / "project", state.configurations, state.database):
        for path, said in edited(directory):
            yield Difference(f"file {path.relative_to(state.root)}", said=said, **touched(path))
    place = state.root / "secrets"
    # Who reads a secret is told by the release, unless that runs as we do.
    reader = int(workload["user"]) if containers else (instead_of_root(int(workload["user"])) or [None])[0]
    readers = dict.fromkeys(workload["secret_files"].values(), reader)
    for path in sorted([place, *place.rglob("[!.]*")]) if place.is_dir() else []:
        entered = path == place and not containers and reader is not None
        yield from _guarded(state, path, readers.get(str(path)), 0o711 if entered else 0o700)
    for name in workload["secret_files"].values():
        if not Path(name).is_file():
            yield Difference(f"file {name.removeprefix(f'{state.root}/')}", said="is gone")


def _guarded(state: State, path: Path, uid: int | None, directory_mode: int) -> Iterator[Difference]:
    """Whether only its owner may enter or read it, and that is the right one."""
    what, found = f"file {path.relative_to(state.root)}", path.stat()
    mode, wanted = found.st_mode & 0o7777, directory_mode if path.is_dir() else 0o600
    at = moment(found.st_ctime)
    if mode != wanted:
        yield Difference(what, "mode", f"{wanted:04o}", f"{mode:04o}", at=at)
    if uid is not None and found.st_uid != uid:
        yield Difference(what, "owner", account(uid), account(found.st_uid), at=at)


def release_drift(state: State, host: Runtime, colours: HostColours) -> Iterator[Difference]:
    """Whether the release that serves, and it alone, runs as one colour that nobody holds."""
    release = colours.workload["release"]
    if not host.has_image(colours.workload["image"]):
        yield Difference(f"release {release}", "image", said=f"{colours.workload['image']} is gone")
    secrets = fingerprint(state, _present(colours.workload["secret_files"]), check=True)
    right = [
        colour for colour in COLOURS if colours.running(colour) and colours.facts(colour).get("release") == release
    ]
    if not right:
        yield Difference(f"release {release}", said="does not run")
    for colour in COLOURS:
        facts = colours.facts(colour)
        if colours.running(colour) and colour not in right[:1]:
            said = f"should not run, and runs release {facts.get('release', 'unknown')}"
            yield Difference(f"colour {colour}", said=said, at=moment(facts["at"]) if facts.get("at") else "")
    for colour in right[:1]:
        drain = state.drain_file(colour)
        if drain.exists():
            yield Difference(f"colour {colour}", said="is held back from requests", **touched(drain))
        if colours.facts(colour).get("fingerprint") != secrets:
            files = [Path(path) for path in _present(colours.workload["secret_files"])]
            newest = max(files, key=lambda path: path.stat().st_mtime, default=state.root)
            said = "secrets are others than it was started with"
            yield Difference(f"colour {colour}", said=said, **touched(newest))


def _present(paths: Mapping[str, str]) -> list[str]:
    return [path for path in paths.values() if Path(path).is_file()]


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


def containers_drift(project: Project, engine: Engine) -> Iterator[Difference]:
    """Containers that are not as the project's file has them, are missing, or should not be there."""
    containers = engine.containers()
    services = _services(project)
    for name, service in services.items():
        found = [container for container in containers if container["Config"]["Labels"].get(SERVICE_LABEL) == name]
        if not found and not service.get("profiles"):
            yield Difference(f"container {engine.project}-{name}", said="is gone")
        elif found and len(found) != int(service.get("scale", 1)):
            yield Difference(f"service {name}", "scale", int(service.get("scale", 1)), len(found))
        for container in found:
            yield from _container(engine, container, service)
    for container in containers:
        if container["Config"]["Labels"].get(SERVICE_LABEL) not in services:
            yield Difference(_called(container), said="should not be there", at=_second(container["Created"]))
    yield from _networks(project, engine)


def _services(project: Project) -> dict[str, dict[str, Any]]:
    """Every service of the project by its parts."""
    names = sorted(path.stem for path in (project.directory / "parts").glob("*.json"))
    return {key: service for name in names for key, service in project.part(name).get("services", {}).items()}


def _container(engine: Engine, container: Container, service: Mapping[str, Any]) -> Iterator[Difference]:
    """What is another in a container than its service has it."""
    what, state = _called(container), container["State"]
    if not state["Running"]:
        yield Difference(what, "state", "running", state["Status"], at=_second(state["FinishedAt"]))
    elif state["Paused"]:
        yield Difference(what, "state", "running", "paused")
    made = _second(container["Created"])
    wanted = service.get("labels", {}).get(LABEL)
    if wanted is not None and container["Config"]["Labels"].get(LABEL) != wanted:
        yield Difference(what, "definition", said="was made of another definition", at=made)
    image = engine.image(service["image"]) or {}
    if container["Image"] != image.get("Id"):
        yield Difference(what, "image", service["image"], container["Config"]["Image"], at=made)
    for path, applied, live in _limits(container["HostConfig"], service):
        # What an engine changes in a container that runs; it keeps no time of that.
        if applied != live:
            yield Difference(what, path, applied, live)
    for name in other_variables(engine, container, service):
        # Not its value: a proxy may have a password in it.
        yield Difference(what, f"environment.{name}", said="is another than was applied", at=made)
    networks = {f"{engine.project}_{name}" for name in service.get("networks", [])}
    live_networks = set(container["NetworkSettings"]["Networks"])
    if state["Running"] and networks != live_networks:
        yield Difference(what, "networks", sorted(networks), sorted(live_networks))


def _limits(live: Mapping[str, Any], service: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Path, what was applied and what is there of each limit that ``docker update`` changes."""
    if "mem_limit" in service:
        yield "mem_limit", size(str(service["mem_limit"])), live["Memory"]
    if "cpus" in service:
        yield "cpus", float(service["cpus"]), live["NanoCpus"] / 1e9
    if "pids_limit" in service:
        yield "pids_limit", int(service["pids_limit"]), live["PidsLimit"]
    if "restart" in service:
        yield "restart", service["restart"], live["RestartPolicy"]["Name"]


def size(text: str) -> int:
    """Bytes of a size as Compose writes it: ``256m``."""
    text = text.lower().removesuffix("b").removesuffix("i")
    return int(float(text[:-1]) * UNITS[text[-1]]) if text[-1:] in UNITS else int(text)


def _networks(project: Project, engine: Engine) -> Iterator[Difference]:
    """Networks that are gone, or let out what they should not."""
    if not _services(project):
        return
    for name, internal in (("front", False), ("data", True)):
        found = engine.get(f"/networks/{engine.project}_{name}")
        if found is None:
            yield Difference(f"network {engine.project}_{name}", said="is gone")
        elif bool(found["Internal"]) != internal:
            at = _second(found["Created"])
            yield Difference(f"network {found['Name']}", "internal", internal, bool(found["Internal"]), at=at)


def _called(container: Container) -> str:
    return f"container {str(container['Name']).lstrip('/')}"


def _second(at: str) -> str:
    """A time of the engine's to the second."""
    return f"{at.partition('.')[0].removesuffix('Z')}Z"


def answers(state: State) -> dict[str, dict[str, Any]]:
    """What the last ``migrate`` and ``seed`` answered; empty if that is not kept."""
    return {name: read_json(state.answers / f"{name}.json", {}) for name in ("migrate", "seed")}
