# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers of a Compose target: listed, stopped, started, removed, and told from others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import stable_hash
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    LABEL,
    PROJECT_LABEL,
    SERVICE_LABEL,
    DockerClient,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.definition import service_of
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.ownership import everything, remove
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import ComposeRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.host.stop import GRACE_SECONDS, SPARE_SECONDS, Parts
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS

# Services, each started before the next; the release is neither.
STARTED = ("database", "proxy")
# In which order they are stopped; releases and whatever else come between.
RANKS = {"proxy": 0, "database": 2}


class Containers(Parts):
    """What runs on a Compose target."""

    def __init__(self, state: State, options: Mapping[str, Any]) -> None:
        self.engine = DockerClient.of(options["engine"])
        self.project = Project.of(state, self.engine)
        self.state, self.host = state, ComposeRuntime(self.engine, state)
        self.database = f"container {self.engine.project}-database-1, volume {self.engine.project}_database"

    def listed(self) -> dict[str, str]:
        """Each container in a few words, by name."""
        return {
            str(container["Name"]).lstrip("/"): " ".join(
                # Health is that of when it ran last.
                [container["State"]["Status"], container["State"].get("Health", {}).get("Status", "")][
                    : 1 + _runs(container)
                ]
            ).strip()
            for container in self.engine.containers()
        }

    def backups(self) -> dict[str, str]:
        return {"newest": "off"}

    def running(self) -> list[str]:
        """What runs, or is started again and again, in the order in which it is stopped."""
        found = [
            (RANKS.get(container["Config"]["Labels"].get(SERVICE_LABEL), 1), str(container["Name"]).lstrip("/"))
            for container in self.engine.containers()
            if container["State"]["Running"] or container["State"]["Restarting"]
        ]
        return [name for _, name in sorted(found)]

    def stop(self, seconds: float) -> None:
        """Stop all of it, reverse proxy first; the engine does not start again what was stopped so."""
        for name in self.running():
            self.engine.run("stop", "--time", str(int(seconds + SPARE_SECONDS)), name)

    def missing(self) -> list[str]:
        """Services that have to be started before the release, in order."""
        wanted = [name for name in STARTED if self.project.part(name)]
        return [name for name in wanted if not any(_runs(found) for found in self.engine.containers(name))]

    def serves(self) -> bool:
        return any(_runs(found) for colour in COLOURS for found in self.engine.containers(service_of(colour)))

    def start(self, name: str) -> None:
        """Start one of them as the project's file has it. Raises EngineError."""
        self.project.up(name)

    def remove(self) -> tuple[list[str], list[str]]:
        """Stop and remove containers, networks, volumes and built images of ours; what of others is left."""
        there = everything(self.project)
        left = remove(self.project, GRACE_SECONDS)
        gone = [thing for thing in there if thing not in left]
        for directory in self.state.images.glob("*"):
            self.host.discard_image(directory.name)
        return ([f"remove {', '.join(gone)}"] if gone else []), left


def _runs(container: Mapping[str, Any]) -> bool:
    return bool(container["State"]["Running"])


def running_containers(engine: DockerClient) -> dict[str, str]:
    """Each container with its image, definition and state, networks and volumes by name, for a plan."""
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
