# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker engine: asked over its socket, told by its client, and whether it will do."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, ClassVar
from urllib.parse import quote

from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import request
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import LOG_TAIL_LINES
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.definition import without_proxies

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
LABEL = "whitestar.deploy"
# start_interval of health checks came with engine 25 and Compose 2.20 (both release notes); Buildx 0.12 is as old.
OLDEST_ENGINE = (25, 0)
OLDEST_COMPOSE = (2, 20)
OLDEST_BUILDX = (0, 12)
COMMAND_SECONDS = 300


class EngineError(RuntimeError):
    """The engine does not answer, or refused; the message has the end of its own words, ``output`` all of them."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class EngineTimeoutError(EngineError):
    """The client took too long and was ended."""


def _failure(arguments: Sequence[str], status: int, said: str) -> EngineError:
    words = said.strip()
    return EngineError(f"docker {' '.join(arguments[:6])} failed ({status}): {words[-2000:]}", words)


def _too_long(arguments: Sequence[str], seconds: float) -> EngineTimeoutError:
    return EngineTimeoutError(f"docker {' '.join(arguments[:6])} took longer than {seconds:g} s")


@dataclass(frozen=True)
class DockerClient:
    """A Docker engine with one project of ours: asked over its ``socket``, told by its client ``program``.

    ``configuration`` is the client's directory with its plugins, where that is not the usual one. A ``planned`` engine
    is yet to be installed, which check mode meets: there is nothing on it.
    """

    OPTION: ClassVar[dict[str, Any]] = {
        "type": "dict",
        "options": {
            "socket": {"type": "path", "required": True},
            "program": {"type": "path", "required": True},
            "configuration": {"type": "path"},
            "project": {"type": "str", "required": True},
            "planned": {"type": "bool", "default": False},
        },
    }
    socket: str
    program: str
    project: str
    configuration: str = ""
    planned: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> DockerClient:
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
            raise _failure(arguments, done.returncode, done.stderr or done.stdout)
        return done

    def follow(self, arguments: Sequence[str], seconds: float, tell: Callable[[str], None]) -> str:
        """Run the client to a good end: its standard error, of which each line is told as it comes.

        Raises EngineError with that, and EngineTimeoutError.
        """
        try:
            process = subprocess.Popen(
                [self.program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                cwd="/",
                env=self.environment(),
            )
        except OSError as error:
            raise self._missing(error) from error
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.start()
        said = []
        with process:
            try:
                for line in process.stderr or ():
                    said.append(line)
                    tell(line)
                process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                timer.cancel()
        if late.is_set():
            raise _too_long(arguments, seconds)
        if process.returncode:
            raise _failure(arguments, process.returncode, "".join(said))
        return "".join(said)

    def run_container(
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
            raise _too_long(arguments, seconds) from error
        except OSError as error:
            raise self._missing(error) from error

    def _missing(self, error: OSError) -> EngineError:
        return EngineError(f"the docker client {self.program} cannot be run ({error.strerror})")

    def environment(self) -> dict[str, str]:
        """The environment of a program that is to talk to this engine."""
        own = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CLI_HINTS": "false", "COMPOSE_PROGRESS": "plain"}
        # Compose 2.27.1 ignores --env-file (docker/compose issue 11906).
        own |= {"COMPOSE_DISABLE_ENV_FILE": "true"}
        own |= {"DOCKER_CONFIG": self.configuration} if self.configuration else {}
        others = ("DOCKER_", "COMPOSE_", "BUILDX_", "BUILDKIT_", "EXPERIMENTAL_BUILDKIT_")
        return {key: value for key, value in os.environ.items() if not key.startswith(others)} | own

    def logs(self, container: str, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines that a container printed."""
        done = self.start(["logs", "--tail", str(lines), container], "", 20)
        return (done.stdout + done.stderr).strip() or "(no output)"


def engine_problems(engine: DockerClient) -> list[str]:
    """One sentence for each reason why nothing can be deployed with this engine, with the variable and the remedy."""
    try:
        version = str((engine.get("/version") or {}).get("Version", "0"))
    except EngineError as error:
        remedy = "Start it, name its socket, or have one installed (titanic_engine_install=true, tag target)."
        return [f"titanic_engine: {error}. {remedy}"]
    found = []
    if _number(version) < OLDEST_ENGINE:
        found.append(f"titanic_engine: the engine is {version}. Install Docker {_words(OLDEST_ENGINE)} or later.")
    for name, question, oldest in (
        ("Compose", ("compose", "version", "--short"), OLDEST_COMPOSE),
        ("Buildx", ("buildx", "version"), OLDEST_BUILDX),
    ):
        try:
            said = engine.run(*question, seconds=20)
        except EngineError as error:
            plugin = f"the client {engine.program} has no working {name} plugin"
            found.append(f"titanic_engine: {plugin} ({error}). Install docker-{name.lower()}-plugin.")
            continue
        if _number(said) < oldest:
            found.append(f"titanic_engine: {name} is {said.strip()}. Install {_words(oldest)} or later.")
    return found


def _number(version: str) -> tuple[int, int]:
    """The first two parts of the first version number in a text."""
    match = re.search(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _words(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def pinned(engine: DockerClient, name: str, *, pull: bool) -> str:
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
