# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Compose target: one project on one engine, its file written from parts, the two colours as services of it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote

from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import note, noted
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    json_bytes,
    make_directory,
    read_json,
    stable_hash,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import request, try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.host.blue_green import (
    DATABASE_LINES,
    LOG_LINES,
    POLL_SECONDS,
    HostColours,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS

ENGINE_OPTION = {
    "type": "dict",
    "options": {
        "socket": {"type": "path", "required": True},
        "program": {"type": "path", "required": True},
        "configuration": {"type": "path"},
        "project": {"type": "str", "required": True},
        "planned": {"type": "bool", "default": False},
    },
}
# In which order sections of the project's file are written, for people.
SECTIONS = ("services", "networks", "volumes", "secrets")
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
LABEL = "whitestar.deploy"
API_PORT = 8000
# Keys that need no quotes in YAML, words that YAML 1.1 takes for something else, what JSON allows and YAML does not.
PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")
SCRATCH = "/tmp"  # noqa: S108 - in a container, a tmpfs of its own
# Where the replicas of a release find what they count together.
COUNTS = "/run/titanic-counts"
# start_interval of health checks came with engine 25 and Compose 2.20 (both release notes); Buildx 0.12 is as old.
OLDEST_ENGINE = (25, 0)
OLDEST_COMPOSE = (2, 20)
OLDEST_BUILDX = (0, 12)
COMMAND_SECONDS = 300
CRASHES = 5
KILLED = 128 + signal.SIGKILL
# Where the front door meets the releases, and where they meet the database, which has no way out.
NETWORKS: dict[str, dict[str, Any]] = {"front": {}, "data": {"internal": True}}
# Those that services of ours have; others may have more.
VOLUMES = ("database", "pgadmin")
# No .json: what is in a directory is found by how its name ends.
OWNED = ".owned"
# What the client gives containers, also in lower case, where its config.json has proxies. No proxy knows ours.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
# What nobody in a container of ours needs.
HARDENED = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
}


class EngineError(RuntimeError):
    """The engine does not answer, or refused; the message has the end of its own words, ``output`` all of them."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class EngineTimeoutError(EngineError):
    """The client took too long and was ended."""


@dataclass(frozen=True)
class Engine:
    """A Docker engine with one project of ours: asked over its ``socket``, told by its client ``program``.

    ``configuration`` is the client's directory with its plugins, where that is not the usual one. A ``planned`` engine
    is yet to be installed, which check mode meets: there is nothing on it.
    """

    socket: str
    program: str
    project: str
    configuration: str = ""
    planned: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Engine:
        """From a module's ``engine`` option."""
        return cls(**{key: value for key, value in options.items() if value})

    def get(self, path: str, **query: str) -> Any:
        """The JSON answer to a question of the engine's API; None for what it does not know. Raises EngineError."""
        if self.planned:
            return None
        words = "&".join(f"{key}={quote(value)}" for key, value in query.items())
        try:
            answer = request(f"unix:{self.socket}", f"{path}?{words}" if words else path, seconds=30)
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or error
            raise EngineError(f"no Docker engine answers at {self.socket} ({why})") from error
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise EngineError(f"the engine answered {answer.status} to {path}: {answer.body[:300].decode()}")
        return answer.json()

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """Every container of the project, or of one of its services, running or not, as ``docker inspect`` shows it."""
        labels = [f"{PROJECT_LABEL}={self.project}"] + ([f"{SERVICE_LABEL}={service}"] if service else [])
        listed = self.get("/containers/json", all="true", filters=json.dumps({"label": labels}))
        found = (self.get(f"/containers/{container['Id']}/json") for container in listed or [])
        return sorted((container for container in found if container), key=lambda container: str(container["Name"]))

    def volumes(self) -> list[dict[str, Any]]:
        """Every volume of the project, whether one of its services uses it or not, as the engine lists it."""
        filters = json.dumps({"label": [f"{PROJECT_LABEL}={self.project}"]})
        return list((self.get("/volumes", filters=filters) or {}).get("Volumes") or [])

    def image(self, reference: str) -> dict[str, Any] | None:
        """An image as ``docker image inspect`` shows it; None if it is not there."""
        found = self.get(f"/images/{quote(reference, safe=':@/')}/json")
        return found if isinstance(found, dict) else None

    def run(
        self, *arguments: str, standard_input: str = "", seconds: float = COMMAND_SECONDS, directory: str = "/"
    ) -> str:
        """Run the client; its standard output. Raises EngineError with its words."""
        return self.finish(arguments, standard_input, seconds, directory).stdout

    def finish(
        self, arguments: Sequence[str], standard_input: str = "", seconds: float = COMMAND_SECONDS, directory: str = "/"
    ) -> subprocess.CompletedProcess[str]:
        """Run the client to a good end: both of its outputs. Raises EngineError with its words."""
        done = self.start(arguments, standard_input, seconds, directory)
        if done.returncode:
            words = (done.stderr or done.stdout).strip()
            message = f"docker {' '.join(arguments[:6])} failed ({done.returncode}): {words[-2000:]}"
            raise EngineError(message, words)
        return done

    def once(
        self, image: str, command: Sequence[str], *options: str, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container of its own, of which nothing is left; its end, whatever that is.

        Raises EngineTimeoutError, and EngineError if the client cannot be run.
        """
        name = f"{self.project}-once-{token_hex(4)}"
        empty = [word for variable in without_proxies({}) for word in ("--env", f"{variable}=")]
        words = ["run", "--rm", "--init", "--pull", "never", "--name", name, *empty, *options, image, *command]
        try:
            return self.start(words, "", seconds)
        except EngineTimeoutError:
            # Without its client the container runs on.
            self.start(["rm", "--force", name], "", COMMAND_SECONDS)
            raise

    def start(
        self, arguments: Sequence[str], standard_input: str, seconds: float, directory: str = "/"
    ) -> subprocess.CompletedProcess[str]:
        """Run the client to its end, whatever that is. Raises EngineError if it cannot be run or takes too long."""
        try:
            return subprocess.run(
                [self.program, *arguments],
                input=standard_input,
                capture_output=True,
                text=True,
                check=False,
                cwd=directory,
                timeout=seconds,
                env=self.environment(),
            )
        except subprocess.TimeoutExpired as error:
            raise EngineTimeoutError(f"docker {' '.join(arguments[:6])} took longer than {seconds:g} s") from error
        except OSError as error:
            raise EngineError(f"the docker client {self.program} cannot be run ({error.strerror})") from error

    def environment(self) -> dict[str, str]:
        """The environment of a program that is to talk to this engine."""
        own = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CLI_HINTS": "false", "COMPOSE_PROGRESS": "plain"}
        # Compose 2.27.1 ignores --env-file (docker/compose issue 11906).
        own |= {"COMPOSE_DISABLE_ENV_FILE": "true"}
        own |= {"DOCKER_CONFIG": self.configuration} if self.configuration else {}
        others = ("DOCKER_", "COMPOSE_", "BUILDX_", "BUILDKIT_", "EXPERIMENTAL_BUILDKIT_")
        return {key: value for key, value in os.environ.items() if not key.startswith(others)} | own

    def logs(self, container: str, lines: int = LOG_LINES) -> str:
        """The last lines that a container printed."""
        done = self.start(["logs", "--tail", str(lines), container], "", 20)
        return (done.stdout + done.stderr).strip() or "(no output)"


def engine_problems(engine: Engine) -> list[str]:
    """One sentence for each reason why nothing can be deployed with this engine, with the variable and the remedy."""
    try:
        version = str((engine.get("/version") or {}).get("Version", "0"))
    except EngineError as error:
        remedy = "start it, name its socket, or have one installed (titanic_target_engine_install=true, tag target)"
        return [f"titanic_target_engine: {error}: {remedy}"]
    found = []
    if _number(version) < OLDEST_ENGINE:
        found.append(f"titanic_target_engine: the engine is {version}: install Docker {_words(OLDEST_ENGINE)} or later")
    for name, question, oldest in (
        ("Compose", ("compose", "version", "--short"), OLDEST_COMPOSE),
        ("Buildx", ("buildx", "version"), OLDEST_BUILDX),
    ):
        try:
            said = engine.run(*question, seconds=20)
        except EngineError as error:
            plugin = f"the client {engine.program} has no working {name} plugin"
            found.append(f"titanic_target_engine: {plugin} ({error}): install docker-{name.lower()}-plugin")
            continue
        if _number(said) < oldest:
            found.append(f"titanic_target_engine: {name} is {said.strip()}: install {_words(oldest)} or later")
    return found


def _number(version: str) -> tuple[int, int]:
    """The first two parts of the first version number in a text."""
    match = re.search(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _words(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


@dataclass(frozen=True)
class Project:
    """The project's directory: ``compose.yaml``, which people can read and run, and the parts that it is made of."""

    directory: Path
    engine: Engine

    @classmethod
    def of(cls, state: State, engine: Engine) -> Project:
        """The project below a state directory."""
        return cls(state.root / "project", engine)

    @property
    def file(self) -> Path:
        """The Compose file."""
        return self.directory / "compose.yaml"

    def part(self, name: str) -> dict[str, Any]:
        """What a part has now, by section; empty if there is none."""
        found = read_json(self.directory / "parts" / f"{name}.json", {})
        return found if isinstance(found, dict) else {}

    def write(self, name: str, part: Mapping[str, Any]) -> None:
        """Replace a part (an empty one takes it away) and write the Compose file anew."""
        parts = self.directory / "parts"
        make_directory(parts, 0o755)
        content = json_bytes(part) if part else None
        if content:
            write_atomically(parts / f"{name}.json", content, 0o644)
        else:
            (parts / f"{name}.json").unlink(missing_ok=True)
        # Before anything is made, so that what a run leaves that was killed is known to be ours.
        self._record(part.get("volumes", {}))
        text = self._text()
        write_atomically(self.file, text, 0o644)
        note(self.directory, {f"parts/{name}.json": content, self.file.name: text})

    def recorded_name(self) -> str:
        """The name of the project that this directory has a record of, so that what is of it is ours; empty if none."""
        return str(self._owned()["project"])

    def volumes(self) -> list[str]:
        """Names of the volumes that a service of it has had, as its record has them."""
        return [self.full_name(name) for name in self._owned()["volumes"]]

    def full_name(self, name: str) -> str:
        """The engine's name of a network or volume of the project."""
        return f"{self.engine.project}_{name}"

    def _owned(self) -> dict[str, Any]:
        """The record of what is ours: ``project``, and ``volumes`` without the project's name."""
        found = read_json(self.directory / OWNED, {})
        if isinstance(found, dict) and found:
            return found
        # Before there was a record the file named the project.
        named = f"name: {json.dumps(self.engine.project)}\n"
        ours = self.file.is_file() and named in self.file.read_text(encoding="utf-8")
        return {"project": self.engine.project, "volumes": [*VOLUMES]} if ours else {"project": "", "volumes": []}

    def _record(self, volumes: Mapping[str, Any]) -> None:
        """Take down that the project is ours, with these volumes and those that it has had."""
        before = self._owned()
        owned = {"project": self.engine.project, "volumes": sorted({*before["volumes"], *volumes})}
        if owned != before or not (self.directory / OWNED).is_file():
            write_atomically(self.directory / OWNED, json_bytes(owned), 0o644)

    def edited(self) -> bool:
        """Whether the Compose file is another than the parts make it."""
        return not has_content(self.file, self._text(), 0o644)

    def _text(self) -> bytes:
        """The Compose file as the parts make it."""
        parts = self.directory / "parts"
        whole: dict[str, Any] = {"name": self.engine.project, "services": {}, "networks": NETWORKS}
        for section in SECTIONS:
            for path in sorted(parts.glob("*.json")):
                whole.setdefault(section, {}).update(read_json(path, {}).get(section, {}))
        head = "# Written by whitestar.deploy from parts/; run it by hand with: docker compose up --detach\n"
        return (head + yaml_text({k: v for k, v in whole.items() if v})).encode()

    def compose(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """Run ``docker compose`` on the project's file alone, whatever lies beside it. Raises EngineError."""
        words = ["compose", f"--file={self.file.name}", f"--env-file={os.devnull}", *arguments]
        return self.engine.run(*words, seconds=seconds, directory=str(self.directory))

    def withdraw(self, name: str) -> None:
        """Take a service away, with its containers, files and part; its volumes stay until a teardown."""
        for container in self.engine.containers(name):
            self.engine.run("rm", "--force", "--volumes", str(container["Id"]))
        shutil.rmtree(self.directory / name, ignore_errors=True)
        note(self.directory, {path: None for path in noted(self.directory) if path.startswith(f"{name}/")})
        self.write(name, {})

    def up(self, service: str, *, anew: bool = False) -> None:
        """Have a service run as the file says, with ``anew`` in a new container even if there is one that looks right.

        Its image has been pinned and is there. Raises EngineError.
        """
        # One replica after another, and so when they end: beside them others serve, who feel every container that is
        # made or taken away (200 requests/s on two cores, three releases and rollbacks: p99 118 ms; all at once 282).
        words = ["--detach", "--no-deps", "--no-build", "--pull", "never", "--quiet-pull"]
        self.compose("--parallel", "1", "up", *words, *(["--force-recreate"] if anew else []), service)


class Service:
    """One service of the project that is not a release: the database, the front door.

    ``definition`` is its entry in the Compose file, without image; ``volumes`` and ``secrets`` (paths by name) are what
    it uses; ``files`` (contents by name) is what it finds in its configuration directory; ``watched`` is a hash of what
    else it reads when it is configured.
    """

    def __init__(
        self,
        project: Project,
        name: str,
        image: str,
        definition: Mapping[str, Any],
        volumes: Mapping[str, Any],
        secrets: Mapping[str, str],
        files: Mapping[str, str],
        watched: str = "",
    ) -> None:
        self.project = project
        self.name = name
        self.image = image
        self.files = files
        self.configured = bool(files or watched)
        self.configuration = stable_hash([dict(files), watched] if watched else dict(files))
        service = merged(merged(HARDENED, definition), {"image": image})
        service["secrets"] = [{"source": key, "target": path} for key, path in secrets.items()]
        self.hash = stable_hash(service)
        # No part of the hash: a container from before, which has no proxy either, stays.
        service["environment"] = without_proxies(service.get("environment", {}))
        service["labels"] = {LABEL: self.hash}
        self.part = {
            "services": {name: {key: value for key, value in service.items() if value}},
            "volumes": dict(volumes),
            "secrets": {key: {"file": path} for key, path in secrets.items()},
        }

    @property
    def directory(self) -> Path:
        """Its configuration directory on the host."""
        return self.project.directory / self.name

    def steps(self) -> list[str]:
        """What is needed, in order: write, start, reload."""
        steps = ["write"] if self.stale() else []
        if not self._runs():
            steps.append("start")
        elif self._applied() != self.configuration:
            steps.append("reload")
        return steps

    def carry_out(self, steps: Sequence[str], reload_command: Sequence[str], answers_at: str, seconds: float) -> None:
        """Do them. Raises EngineError with the last words of a container that does not come up, or does not answer."""
        engine = self.project.engine
        before = {found["Id"]: found["RestartCount"] for found in engine.containers(self.name)}
        if "write" in steps:
            self.write()
        if "start" in steps:
            self.project.up(self.name, anew=self._altered())
        if "reload" in steps:
            engine.run("exec", str(engine.containers(self.name)[0]["Id"]), *reload_command)
        if steps:
            self._wait(answers_at, seconds, before)
        if steps and self.configured:
            write_atomically(self.directory / ".applied", self.configuration.encode(), 0o644)

    def stale(self) -> bool:
        """Whether its part of the project or one of its files is another than it should be."""
        files = ((self.directory / name, text.encode()) for name, text in self.files.items())
        same = self.project.part(self.name) == self.part and not self.project.edited()
        return not same or not all(has_content(*file, 0o644) for file in files)

    def write(self) -> None:
        """Write its files and its part of the project."""
        make_directory(self.directory, 0o755)
        for name, text in self.files.items():
            write_atomically(self.directory / name, text.encode(), 0o644)
        note(self.project.directory, {f"{self.name}/{name}": text.encode() for name, text in self.files.items()})
        self.project.write(self.name, self.part)

    def last_output(self) -> str:
        """The last lines that it printed."""
        found = self.project.engine.containers(self.name)
        return self.project.engine.logs(str(found[0]["Id"])) if found else "(no container)"

    def _runs(self) -> bool:
        """Whether a container of exactly this definition runs and is healthy, where it has a health check."""
        for container in self.project.engine.containers(self.name):
            right = container["Config"]["Labels"].get(LABEL) == self.hash and container["State"]["Running"]
            return bool(
                right
                and not self._altered()
                and container["State"].get("Health", {}).get("Status", "healthy") == "healthy"
            )
        return False

    def _altered(self) -> bool:
        """Whether somebody took its container from one of its networks, or gave it other variables."""
        engine, service = self.project.engine, self.part["services"][self.name]
        wanted = {f"{engine.project}_{name}" for name in service.get("networks", [])}
        return any(
            not wanted <= set(container["NetworkSettings"]["Networks"]) or other_variables(engine, container, service)
            for container in engine.containers(self.name)
        )

    def _applied(self) -> str:
        """The hash of what the container was last configured with."""
        if not self.configured:
            return self.configuration
        try:
            return (self.directory / ".applied").read_text(encoding="utf-8")
        except OSError:
            return ""

    def _wait(self, answers_at: str, seconds: float, before: Mapping[str, int]) -> None:
        """Wait until it is ready or has ended; how often a container had been restarted ``before`` does not count."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.project.engine.containers(self.name)
            alive = [c for c in found if c["State"]["Running"] and c["RestartCount"] <= before.get(c["Id"], 0)]
            if alive and self._runs() and (not answers_at or try_request(answers_at, "/")):
                return
            if not alive or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        where = f" or does not answer at {answers_at}" if answers_at else ""
        raise EngineError(f"the container does not get ready{where}; its last output:\n{self.last_output()}")


class ComposeColours(HostColours):
    """The two colours as Compose services ``api-blue`` and ``api-green``, each with the workload's replicas."""

    def __init__(self, engine: Engine, state: State, *arguments: Any) -> None:
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
        """The address of each running container on the network that it shares with the front door."""
        found = []
        for container in self.engine.containers(service_of(colour)):
            network = container["NetworkSettings"]["Networks"].get(f"{self.engine.project}_front") or {}
            if container["State"]["Running"] and network.get("IPAddress"):
                found.append(f"{network['IPAddress']}:{API_PORT}")
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
class ContainerPrograms:
    """Commands of images, each run in a container of its own."""

    engine: Engine

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
            done = self.engine.once(image, command, *words, seconds=seconds)
        except EngineTimeoutError as error:
            raise subprocess.TimeoutExpired(list(command), seconds) from error
        answer = None
        with suppress(ValueError):
            answer = json.loads(done.stdout)
        return done.returncode, answer, done.stderr.strip()


@dataclass(frozen=True)
class ComposeRuntime(ContainerPrograms):
    """How releases run on a Compose target."""

    state: State

    def colours(self, workload: Mapping[str, Any], fingerprint: str, *limits: Any) -> HostColours:
        """The two colours, for this workload."""
        return ComposeColours(self.engine, self.state, workload, fingerprint, *limits)

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


def service_of(colour: str) -> str:
    """The Compose service of a colour."""
    return f"api-{colour}"


def memory(workload: Mapping[str, Any]) -> str:
    """The memory limit of a workload as Compose writes it: ``256m`` for ``256Mi``."""
    return str(workload["resources"]["memory"]).lower().removesuffix("i")


def api_part(workload: Mapping[str, Any], colour: str, state: State, drain_seconds: float) -> dict[str, Any]:
    """The part of the project that runs a workload as this colour; secrets have the same paths inside as outside."""
    own = {
        "TITANIC_BIND": f"0.0.0.0:{API_PORT}",
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


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on it, mappings recursively."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def without_proxies(environment: Any) -> dict[str, Any]:
    """The ``environment`` of a service with every proxy in both spellings: as it names that, set to nothing otherwise.

    Programs differ in which of the two they prefer, and the client adds the one that is not there.
    """
    given = variables_of(environment)
    named = {name.lower(): value for name, value in given.items()}
    both = {name: named.get(upper.lower(), "") for upper in PROXIES for name in (upper, upper.lower())}
    return both | given


def variables_of(environment: Any) -> dict[str, Any]:
    """Variables by name, of a mapping or of a list of ``NAME=value``, as Compose takes both."""
    if isinstance(environment, Mapping):
        return dict(environment)
    pairs = (str(entry).partition("=") for entry in environment or [])
    return {name: value if equals else None for name, equals, value in pairs}


def other_variables(engine: Engine, container: Mapping[str, Any], service: Mapping[str, Any]) -> list[str]:
    """The names of variables that a container has otherwise than its image and its service. Raises EngineError.

    Not those whose value Compose finds elsewhere: in a file, or in the environment of who runs it.
    """
    image = (engine.image(str(container["Image"])) or {}).get("Config") or {}
    own = variables_of(service.get("environment"))
    wanted = variables_of(image.get("Env")) | own
    live = variables_of(container["Config"].get("Env"))
    told = {name for name, value in own.items() if not isinstance(value, str)}
    added = set() if service.get("env_file") else live.keys() - wanted.keys()
    # A proxy that is set to nothing is as good as one that is not set.
    empty = {name for name in wanted if name.upper() in PROXIES and not wanted[name] and not live.get(name)}
    return sorted(added | {name for name in wanted.keys() - told - empty if live.get(name) != wanted[name]})


def upstreams(project: str, replicas: int) -> list[str]:
    """Every address that the front door may find a release at: both colours, all replicas (a text will do)."""
    numbers = range(1, int(replicas) + 1)
    return [f"{project}-{service_of(colour)}-{number}:{API_PORT}" for colour in COLOURS for number in numbers]


def pinned(engine: Engine, name: str, *, pull: bool) -> str:
    """The image that ``name`` stands for, as ``NAME@DIGEST`` or, if no registry has it, by its id.

    It is fetched if it is missing and ``pull`` is true; empty if it is missing otherwise. Raises EngineError.
    """
    found = engine.image(name)
    if found is None and pull:
        engine.run("pull", "--quiet", name, seconds=1800)
        found = engine.image(name)
    if found is None:
        return ""
    digests = found.get("RepoDigests") or []
    return str(digests[0] if digests else found["Id"])


def yaml_text(value: Mapping[str, Any], indent: str = "") -> str:
    """``value`` as YAML in block style, scalars as JSON, for people and for Compose (``$`` is doubled for it)."""
    lines = []
    for key, item in value.items():
        plain = PLAIN_KEY.fullmatch(key) and key.lower() not in YAML_WORDS
        head = f"{indent}{key if plain else _quoted(key)}:"
        if isinstance(item, Mapping) and item:
            lines.append(f"{head}\n{yaml_text(item, indent + '  ')}")
        elif isinstance(item, list) and item and all(isinstance(entry, Mapping) and entry for entry in item):
            lines.append(f"{head}\n")
            lines += [f"{indent}  - {yaml_text(entry, indent + '    ').lstrip()}" for entry in item]
        else:
            lines.append(f"{head} {_quoted(_doubled(item))}\n")
    return "".join(lines)


def _quoted(value: Any) -> str:
    """``value`` as JSON that is YAML too."""
    return NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def _doubled(value: Any) -> Any:
    """``value`` with every ``$`` doubled, but in keys, in which Compose replaces nothing."""
    if isinstance(value, Mapping):
        return {key: _doubled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_doubled(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value
