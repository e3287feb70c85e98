# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers and networks that differ from the project's file. An engine knows when one was made, and not by whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import Difference
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import LABEL, SERVICE_LABEL, DockerClient
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project, other_variables

UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}
Container = Mapping[str, Any]


def containers_drift(project: Project, engine: DockerClient) -> Iterator[Difference]:
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


def _container(engine: DockerClient, container: Container, service: Mapping[str, Any]) -> Iterator[Difference]:
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


def _networks(project: Project, engine: DockerClient) -> Iterator[Difference]:
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
