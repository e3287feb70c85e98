# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What on an engine is of this deployment and what is somebody else's: recorded, never taken from a name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    PROJECT_LABEL,
    SERVICE_LABEL,
    EngineError,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.definition import NETWORKS, service_of
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import VOLUMES, Project
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS

# Compose notes on each container from where it was made: ours are made in the project's directory.
MADE_IN = "com.docker.compose.project.working_dir"
SERVICES = ("proxy", *map(service_of, COLOURS), "database", "pgadmin")


def refusals(project: Project) -> list[str]:
    """One sentence for each thing of somebody else's that a deployment would meet; nothing is changed.

    A project that this state directory has a record of is ours. Not ours are containers that were made elsewhere,
    and networks and volumes without a record. Of another project everything is somebody else's. Raises EngineError.
    """
    name, recorded = project.engine.project, project.recorded_name()
    if recorded not in ("", name):
        where = f"{project.directory.parent} has a deployment of the project {recorded}"
        return [f"titanic_project: {where}, not {name}. Set it back, or tear that down first."]
    remedy = "Choose another titanic_project, or remove it first."
    owner = f"is not of the deployment in {project.directory.parent}"
    found = _met(project) if recorded else [*_met(project), *_rest(project)]
    return [f"titanic_project: {thing} {owner}. {remedy}" for thing in dict.fromkeys(found)]


def own_containers(project: Project) -> list[dict[str, Any]]:
    """Containers of this deployment, the reverse proxy first and the database last. Raises EngineError."""
    found = [container for container in project.engine.containers() if _is_own(project, container)]
    return sorted(found, key=lambda container: SERVICES.index(service) if (service := _service(container)) else -1)


def remove(project: Project, seconds: float) -> list[str]:
    """Stop and remove what is recorded as ours, volumes included; what of others is left. Raises EngineError."""
    engine = project.engine
    if project.recorded_name() == engine.project:
        for container in own_containers(project):
            engine.run("stop", "--time", str(int(seconds)), str(container["Id"]))
            engine.run("rm", "--force", "--volumes", str(container["Id"]))
        used = {name for container in engine.containers() for name in container["NetworkSettings"]["Networks"]}
        for network in _labelled_networks(project):
            if network["Name"] in {project.full_name(name) for name in NETWORKS} - used:
                _try_to_remove(project, "network", network["Name"])
        kept = {mount.get("Name") for container in engine.containers() for mount in container["Mounts"]}
        for volume in engine.volumes():
            if volume["Name"] in project.volumes() and volume["Name"] not in kept:
                _try_to_remove(project, "volume", volume["Name"])
    return everything(project)


def everything(project: Project) -> list[str]:
    """Each container, network and volume that carries the project's name, in words. Raises EngineError."""
    return list(dict.fromkeys(_rest(project)))


def _try_to_remove(project: Project, kind: str, name: str) -> None:
    """Remove it unless containers of another project use it."""
    with suppress(EngineError):
        project.engine.run(kind, "rm", name)


def _is_own(project: Project, container: Mapping[str, Any]) -> bool:
    """Whether a container was made in the project's directory."""
    made_in = (container["Config"].get("Labels") or {}).get(MADE_IN, "")
    return bool(made_in) and Path(made_in).resolve() == project.directory.resolve()


def _service(container: Mapping[str, Any]) -> str:
    """The service of ours that a container is of; empty for another one."""
    service = str((container["Config"].get("Labels") or {}).get(SERVICE_LABEL, ""))
    return service if service in SERVICES else ""


def _met(project: Project) -> Iterator[str]:
    """What others have in the place of ours: a service of the project, or a name that something of ours would have."""
    engine = project.engine
    ours = rf"^/?{re.escape(engine.project)}-({'|'.join(SERVICES)})-[0-9]+$"
    listed = engine.get("/containers/json", all="true", filters=json.dumps({"name": [ours]})) or []
    named = [container["Id"] for container in listed]
    found = {container["Id"]: container for container in engine.containers()}
    found |= {key: container for key in named if (container := engine.get(f"/containers/{key}/json"))}
    for key, container in found.items():
        if (_service(container) or key in named) and not _is_own(project, container):
            yield f"container {container['Name'].lstrip('/')}"
    for name in map(project.full_name, NETWORKS):
        network = engine.get(f"/networks/{name}")
        if network and (network.get("Labels") or {}).get(PROJECT_LABEL) != engine.project:
            yield f"network {name}"
    for name in map(project.full_name, VOLUMES):
        if name not in project.volumes() and engine.get(f"/volumes/{name}"):
            yield f"volume {name}"


def _rest(project: Project) -> Iterator[str]:
    """Everything else that carries the project's name."""
    engine = project.engine
    for container in engine.containers():
        yield f"container {container['Name'].lstrip('/')}"
    for network in _labelled_networks(project):
        yield f"network {network['Name']}"
    for name in map(project.full_name, NETWORKS):
        if engine.get(f"/networks/{name}"):
            yield f"network {name}"
    for volume in engine.volumes():
        yield f"volume {volume['Name']}"
    for name in dict.fromkeys([*project.volumes(), *map(project.full_name, VOLUMES)]):
        if engine.get(f"/volumes/{name}"):
            yield f"volume {name}"


def _labelled_networks(project: Project) -> list[dict[str, Any]]:
    filters = json.dumps({"label": [f"{PROJECT_LABEL}={project.engine.project}"]})
    return list(project.engine.get("/networks", filters=filters) or [])
