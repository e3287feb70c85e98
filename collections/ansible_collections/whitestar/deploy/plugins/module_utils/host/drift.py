# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs on a host from what was applied: files, secrets, and the release that should serve.

A host knows who a file belongs to and when it was changed.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import edited
from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import Difference
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import read_json
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import instead_of_root
from ansible_collections.whitestar.deploy.plugins.module_utils.host.blue_green import BlueGreen
from ansible_collections.whitestar.deploy.plugins.module_utils.host.fingerprint import fingerprint
from ansible_collections.whitestar.deploy.plugins.module_utils.host.runtime import Runtime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS


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


def release_drift(state: State, host: Runtime, colours: BlueGreen) -> Iterator[Difference]:
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
            said = "its secrets have changed since it was started"
            yield Difference(f"colour {colour}", said=said, **touched(newest))


def _present(paths: Mapping[str, str]) -> list[str]:
    return [path for path in paths.values() if Path(path).is_file()]


def answers(state: State) -> dict[str, dict[str, Any]]:
    """What the last ``migrate`` and ``seed`` answered; empty if that is not kept."""
    return {name: read_json(state.answers / f"{name}.json", {}) for name in ("migrate", "seed")}
