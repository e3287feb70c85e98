# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases as containers: the two colours as services of the project, commands in containers of their own."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import json_bytes, make_directory, read_json
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    LABEL,
    DockerClient,
    EngineError,
    EngineTimeoutError,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.definition import (
    HARDENED,
    merged,
    service_of,
    without_proxies,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project, other_variables
from ansible_collections.whitestar.deploy.plugins.module_utils.host.blue_green import (
    DATABASE_LINES,
    LOG_LINES,
    BlueGreen,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State

SCRATCH = "/tmp"  # noqa: S108 - in a container, a tmpfs of its own
# Where the replicas of a release find what they count together.
COUNTS = "/run/titanic-counts"
CRASHES = 5
KILLED = 128 + signal.SIGKILL


class ComposeBlueGreen(BlueGreen):
    """The two colours as Compose services ``api-blue`` and ``api-green``, each with the workload's replicas."""

    def __init__(self, engine: DockerClient, state: State, *arguments: Any) -> None:
        super().__init__(state, *arguments)
        self.engine = engine
        self.project = Project.of(state, engine)

    def running(self, colour: str) -> bool:
        """Whether any container of it runs."""
        return any(container["State"]["Running"] for container in self.engine.containers(service_of(colour)))

    def facts(self, colour: str) -> dict[str, Any]:
        """The labels that its first container was started with."""
        for container in self.engine.containers(service_of(colour)):
            with suppress(KeyError, ValueError):
                found = json.loads(container["Config"]["Labels"][LABEL])
                return found if isinstance(found, dict) else {}
        return {}

    def altered(self, colour: str) -> bool:
        """Whether a container of it has other variables than its service."""
        service = self.project.part(service_of(colour)).get("services", {}).get(service_of(colour), {})
        containers = self.engine.containers(service_of(colour))
        return any(other_variables(self.engine, container, service) for container in containers)

    def addresses(self, colour: str) -> list[str]:
        """The address of each running container on the network that it shares with the reverse proxy."""
        found = []
        for container in self.engine.containers(service_of(colour)):
            network = container["NetworkSettings"]["Networks"].get(f"{self.engine.project}_front") or {}
            if container["State"]["Running"] and network.get("IPAddress"):
                found.append(f"{network['IPAddress']}:{self.workload['port']}")
        return found

    def ended(self, colour: str) -> str:
        """Whether a container has ended, started again or run out of memory."""
        for container in self.engine.containers(service_of(colour)):
            found = container["State"]
            if found["OOMKilled"]:
                return f"it ran out of memory (limit: {memory(self.workload)})"
            # The engine does not always hear of that, but nobody else kills a release that is starting.
            if found["Status"] != "running" and found["ExitCode"] == KILLED:
                return f"it was killed, most likely because it ran out of memory (limit: {memory(self.workload)})"
            if found["Status"] in {"exited", "dead", "restarting"}:
                return f"it ended at once (exit code {found['ExitCode']})"
            # One that runs again has forgotten why it ended, and will be seen between two runs, which get rarer.
            if container["RestartCount"] >= CRASHES:
                return "it ended at once, again and again"
        return ""

    def last_output(self, colour: str, lines: int = LOG_LINES) -> str:
        """The end of the output of each container."""
        containers = self.engine.containers(service_of(colour))
        return "\n".join(self.engine.logs(str(container["Id"]), lines) for container in containers) or "(no container)"

    def described(self, colour: str) -> str:
        """State, health checks, limits and mounts of each container, as ``docker inspect`` has them."""
        kept = ("Name", "Image", "State", "RestartCount", "Config", "HostConfig", "Mounts", "NetworkSettings")
        containers = self.engine.containers(service_of(colour))
        return json_bytes([{key: container.get(key) for key in kept} for container in containers]).decode()

    def launch(self, colour: str) -> None:
        """Write its part of the project and start it."""
        facts = {"release": self.workload["release"], "fingerprint": self.fingerprint, "at": time.time()}
        part = api_part(self.workload, colour, self.state, self.drain_seconds)
        service = part["services"][service_of(colour)]
        if "TITANIC_COUNTS_FILE" in service["environment"]:
            user = int(self.workload["user"])
            make_directory(self.state.counts, 0o700, (user, user))
        service["labels"] = dict(service.get("labels", {})) | {LABEL: json.dumps(facts, sort_keys=True)}
        self.project.write(service_of(colour), part)
        self.project.up(service_of(colour))

    def halt(self, colour: str) -> None:
        """Stop and remove its containers, then take its part away."""
        for container in self.engine.containers(service_of(colour)):
            self.engine.run("stop", "--time", str(int(self.drain_seconds)), str(container["Id"]))
            self.engine.run("rm", "--force", str(container["Id"]))
        if self.project.part(service_of(colour)):
            self.project.write(service_of(colour), {})


@dataclass(frozen=True)
class ComposeRuntime:
    """How releases run on a Compose target."""

    engine: DockerClient
    state: State

    def has_image(self, reference: str) -> bool:
        """Whether the engine has the image."""
        return self.engine.image(reference) is not None

    def missing(self, image: str, _command: Sequence[str]) -> str:
        """The image, if the engine does not have it."""
        return "" if image and self.has_image(image) else f"image {image or 'of the release'}"

    def execute(
        self,
        image: str,
        command: Sequence[str],
        environment: Mapping[str, Any],
        secret_files: Mapping[str, str],
        seconds: float,
    ) -> tuple[int, Any, str]:
        """Run a command in a container of its own beside the database: (exit code, JSON answer or None, errors).

        The secret files have the same paths in the container as outside. Raises subprocess.TimeoutExpired, EngineError.
        """
        words = ["--network", f"{self.engine.project}_data", "--read-only", "--tmpfs", SCRATCH]
        words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
        for path in secret_files.values():
            words += ["--mount", f"type=bind,source={path},target={path},readonly"]
        for name, value in without_proxies(environment).items():
            words += ["--env", f"{name}={value}"]
        try:
            done = self.engine.run_container(image, command, *words, seconds=seconds)
        except EngineTimeoutError as error:
            raise subprocess.TimeoutExpired(list(command), seconds) from error
        answer = None
        with suppress(ValueError):
            answer = json.loads(done.stdout)
        return done.returncode, answer, done.stderr.strip()

    def colours(self, workload: Mapping[str, Any], fingerprint: str, *limits: Any) -> BlueGreen:
        return ComposeBlueGreen(self.engine, self.state, workload, fingerprint, *limits)

    def restore_point(self) -> dict[str, Any]:
        """None: there are no backups of containers yet (titanic_backup refuses them by name)."""
        return {}

    def database_output(self) -> str:
        """The last lines of the database's container."""
        try:
            found = self.engine.containers("database")
            return self.engine.logs(str(found[0]["Id"]), DATABASE_LINES) if found else "(no container)"
        except EngineError as error:
            return f"({error})"

    def discard_image(self, identity: str) -> None:
        """Remove an image and what was recorded of it; one that something else uses stays."""
        directory = self.state.images / identity
        found = read_json(directory / "image.json", {})
        with suppress(EngineError):
            own = (self.engine.image(found["reference"]) if found else None) or {"Id": ""}
            # The tag of a version may have gone to a newer image.
            tags = [tag for tag in found.get("tags", []) if (self.engine.image(tag) or {}).get("Id") == own["Id"]]
            if tags:
                self.engine.run("image", "rm", *tags)
        shutil.rmtree(directory, ignore_errors=True)


def memory(workload: Mapping[str, Any]) -> str:
    """The memory limit of a workload as Compose writes it: ``256m`` for ``256Mi``."""
    return str(workload["resources"]["memory"]).lower().removesuffix("i")


def api_part(workload: Mapping[str, Any], colour: str, state: State, drain_seconds: float) -> dict[str, Any]:
    """The part of the project that runs a workload as this colour; secrets have the same paths inside as outside."""
    own = {
        "TITANIC_BIND": f"0.0.0.0:{workload['port']}",
        "TITANIC_DRAIN_FILE": "/run/titanic/drain",
        "TITANIC_METRICS_DIRECTORY": f"{SCRATCH}/metrics",
    }
    over = dict(workload.get("overrides", {}))
    drain = {
        "type": "bind",
        "source": str(state.drain_file(colour).parent),
        "target": "/run/titanic",
        "read_only": True,
    }
    shared = []
    if int(workload["replicas"]) > 1:
        own["TITANIC_COUNTS_FILE"] = f"{COUNTS}/requests"
        shared = [{"type": "bind", "source": str(state.counts), "target": COUNTS}]
    # Added to ours, as Compose does with several files: without the drain file's directory there would be no switch.
    over["volumes"] = [drain, *shared, *over.get("volumes", [])]
    service = HARDENED | {
        "image": workload["image"],
        "command": list(workload["command"]),
        "user": f"{workload['user']}:{workload['user']}",
        "scale": int(workload["replicas"]),
        "init": True,
        "restart": "unless-stopped",
        "stop_grace_period": f"{int(drain_seconds)}s",
        "mem_limit": memory(workload),
        "cpus": float(workload["resources"]["cpu"]),
        "pids_limit": 200,
        "tmpfs": [f"{SCRATCH}:size=64m,mode=1777,noexec,nosuid"],
        "environment": dict(workload["environment"]) | own,
        "secrets": [{"source": name, "target": path} for name, path in sorted(workload["secret_files"].items())],
        "networks": ["front", "data"],
    }
    service = merged(service, over)
    service["environment"] = without_proxies(service["environment"])
    return {
        "services": {service_of(colour): service},
        "secrets": {name: {"file": path} for name, path in workload["secret_files"].items()},
    }
