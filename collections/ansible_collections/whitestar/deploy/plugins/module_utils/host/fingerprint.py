# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is on a host, part by part, so that a plan can tell whether anything has moved since it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import stable_hash
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import LABEL, PROJECT_LABEL, Engine
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State, fingerprint
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS

DAEMONS = ("caddy", *COLOURS)


def reality(state: State, engine: Mapping[str, Any] | None) -> dict[str, str]:
    """Parts by name, each with what tells it from another: the last attempt of a release, settings, what runs.

    What users write is not part of it. Raises OSError, ValueError and EngineError.
    """
    entries = state.ledger().entries
    secrets = sorted(str(path) for path in (state.root / "secrets").rglob("[a-z]*") if path.is_file())
    found = {
        "the last release in the ledger": str(entries[-1]) if entries else "none",
        "the secrets": fingerprint(state, secrets, check=True) if secrets else "none",
        "the settings on the target": _files(state.root / "Caddyfile", *sorted((state.root / "project").rglob("*"))),
        "the installed programs": _links(state.root / "tools"),
    }
    return found | (_containers(Engine.of(engine)) if engine else _processes(state))


def _files(*paths: Path) -> str:
    """A hash of these files' contents and names; the project's own directories hold no secret."""
    files = [path for path in paths if path.is_file() and path.name[0] != "."]
    return stable_hash({str(path): path.read_bytes().hex() for path in files})


def _links(directory: Path) -> str:
    return ", ".join(f"{path.name} {path.readlink()}" for path in sorted(directory.glob("*")) if path.is_symlink())


def _processes(state: State) -> dict[str, str]:
    """Each process with its release, whichever pid it has."""
    daemons = {name: state.daemon(name) for name in DAEMONS}
    running = {name: daemon.facts().get("release", "runs") for name, daemon in daemons.items() if daemon.process()}
    return {f"the process {name}": str(running.get(name, "stopped")) for name in daemons}


def _containers(engine: Engine) -> dict[str, str]:
    """Each container with its image, definition and state; networks and volumes by name."""
    label = {"filters": f'{{"label":["{PROJECT_LABEL}={engine.project}"]}}'}
    found = {}
    for container in engine.containers():
        own = [container["Id"][:12], container["Image"], container["Config"]["Labels"].get(LABEL, "")]
        found[f"the container {container['Name'].lstrip('/')}"] = stable_hash([*own, container["State"]["Status"]])
    for network in engine.get("/networks", **label) or []:
        found[f"the network {network['Name']}"] = str(network["Id"])
    for volume in engine.volumes():
        found[f"the volume {volume['Name']}"] = str(volume["CreatedAt"])
    return found
