# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Compose project: its file, written from parts, and those of its services that are no release."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import read_checksums, record_checksums
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    json_bytes,
    make_directory,
    read_json,
    stable_hash,
    write_atomically,
    write_json,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import refuses, try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    COMMAND_SECONDS,
    LABEL,
    DockerClient,
    EngineError,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.definition import (
    HARDENED,
    NETWORKS,
    PROXIES,
    merged,
    variables_of,
    without_proxies,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.blue_green import POLL_SECONDS
from ansible_collections.whitestar.deploy.plugins.module_utils.host.maintenance import connections_closing
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State

# In which order sections of the project's file are written, for people.
SECTIONS = ("services", "networks", "volumes", "secrets")
# Keys that need no quotes in YAML, words that YAML 1.1 takes for something else, what JSON allows and YAML does not.
PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")
# Those that services of ours have; others may have more.
VOLUMES = ("database", "pgadmin")
# No .json: what is in a directory is found by how its name ends.
OWNED = ".owned"


@dataclass(frozen=True)
class Project:
    """The project's directory: ``compose.yaml``, which people can read and run, and the parts that it is made of."""

    directory: Path
    engine: DockerClient

    @classmethod
    def of(cls, state: State, engine: DockerClient) -> Project:
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
        record_checksums(self.directory, {f"parts/{name}.json": content, self.file.name: text})

    def recorded_name(self) -> str:
        """The name of the project that this directory has a record of, so that what is of it is ours; empty if none."""
        return str(self._owned()["project"])

    def volumes(self) -> list[str]:
        """Names of the volumes that a service of it has had, as its record has them."""
        return [self.full_name(name) for name in self._owned()["volumes"]]

    def claim(self, volume: str) -> None:
        """Take down that a volume is ours before it is made, so that nobody else's is taken for it."""
        self._record({volume: {}})

    def networks(self) -> list[str]:
        """Names of its networks, as the engine has them: those of every project, and those of single services."""
        parts = [read_json(path, {}) for path in sorted((self.directory / "parts").glob("*.json"))]
        own = [name for part in parts for name in part.get("networks", {})]
        return [self.full_name(name) for name in dict.fromkeys([*NETWORKS, *own])]

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
            write_json(self.directory / OWNED, owned)

    def edited(self) -> bool:
        """Whether the Compose file is another than the parts make it."""
        return not has_content(self.file, self._text(), 0o644)

    def _text(self) -> bytes:
        """The Compose file as the parts make it."""
        parts = self.directory / "parts"
        whole: dict[str, Any] = {"name": self.engine.project, "services": {}, "networks": dict(NETWORKS)}
        for section in SECTIONS:
            for path in sorted(parts.glob("*.json")):
                whole.setdefault(section, {}).update(read_json(path, {}).get(section, {}))
        head = "# Written by whitestar.deploy from parts/; run it by hand with: docker compose up --detach\n"
        return (head + yaml_text({k: v for k, v in whole.items() if v})).encode()

    def compose(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """Run ``docker compose`` on the project's file alone, whatever lies beside it. Raises EngineError."""
        words = ["compose", f"--file={self.file.name}", f"--env-file={os.devnull}", *arguments]
        return self.engine.run(*words, seconds=seconds, directory=str(self.directory))

    def remove_service(self, name: str) -> None:
        """Take a service away that has no container any more, with its files and part; its volumes stay."""
        shutil.rmtree(self.directory / name, ignore_errors=True)
        record_checksums(
            self.directory, {path: None for path in read_checksums(self.directory) if path.startswith(f"{name}/")}
        )
        self.write(name, {})

    def up(self, service: str) -> None:
        """Have a service run as the file says; its image is there. Raises EngineError."""
        # One replica after another, at the start and at the end: the releases beside them feel every container that is
        # made or removed. p99 of three releases and rollbacks (200 requests/s, two cores): 118 ms; all at once 282 ms.
        words = ["--detach", "--no-deps", "--no-build", "--pull", "never", "--quiet-pull"]
        self.compose("--parallel", "1", "up", *words, service)


class Service:
    """One service of the project that is not a release: the database, the reverse proxy.

    In ``options``, ``definition`` is its entry in the Compose file, without image. ``volumes`` and ``secret_files``
    (paths by name) are what it uses. ``files`` (contents by name) go into its configuration directory. ``watched`` is
    a hash of what else it reads when it is configured.
    """

    def __init__(self, project: Project, name: str, image: str, options: Mapping[str, Any], watched: str = "") -> None:
        secrets = options.get("secret_files") or {}
        self.project = project
        self.name = name
        self.image = image
        self.files: Mapping[str, str] = options.get("files") or {}
        self.configured = bool(self.files or watched)
        self.configuration = stable_hash([dict(self.files), watched] if watched else dict(self.files))
        service = merged(merged(HARDENED, options["definition"]), {"image": image})
        service["secrets"] = [{"source": key, "target": path} for key, path in secrets.items()]
        self.hash = stable_hash(service)
        # No part of the hash: a container from before, which has no proxy either, stays.
        service["environment"] = without_proxies(service.get("environment", {}))
        service["labels"] = {LABEL: self.hash}
        self.part = {
            "services": {name: {key: value for key, value in service.items() if value}},
            "volumes": dict(options.get("volumes") or {}),
            "secrets": {key: {"file": path} for key, path in secrets.items()},
        }
        own: dict[str, Any] = {network: {} for network in service.get("networks", []) if network not in NETWORKS}
        if own:
            self.part["networks"] = own

    @property
    def directory(self) -> Path:
        """Its configuration directory on the host."""
        return self.project.directory / self.name

    def needed(self, answers_at: str = "") -> list[str]:
        """What is needed, in order: write, start, reload, restart."""
        needed = ["write"] if self.stale() else []
        if not self._runs():
            needed.append("start")
        elif self._applied() != self.configuration:
            needed.append("reload")
        elif answers_at and refuses(answers_at):
            # What the engine publishes the port with has ended, and is started with the container alone.
            needed.append("restart")
        return needed

    def settle(
        self, reload_command: Sequence[str], answers_at: str, seconds: float, closing_seconds: float = 0
    ) -> None:
        """Have its program load changed files, if it has not, and wait until it is ready.

        For ``closing_seconds`` before that a reverse proxy closes each connection with its answer.
        Raises EngineError with the last words of a container that does not come up, or does not answer.
        """
        engine = self.project.engine
        if self._applied() != self.configuration:
            with connections_closing(State(self.project.directory.parent), closing_seconds):
                engine.run("exec", str(engine.containers(self.name)[0]["Id"]), *reload_command)
        self._wait(answers_at, seconds)
        self.record_applied()

    def record_applied(self) -> None:
        """Take down that its program has loaded its files; one that is started finds them as they are."""
        if self.configured:
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
        record_checksums(
            self.project.directory, {f"{self.name}/{name}": text.encode() for name, text in self.files.items()}
        )
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
                and not self.altered()
                and container["State"].get("Health", {}).get("Status", "healthy") == "healthy"
            )
        return False

    def altered(self) -> bool:
        """Whether somebody took its container from one of its networks, or gave it other variables."""
        engine, service = self.project.engine, self.part["services"][self.name]
        wanted = {f"{engine.project}_{name}" for name in service.get("networks", [])}
        return any(
            not wanted <= set(container["NetworkSettings"]["Networks"]) or other_variables(engine, container, service)
            for container in engine.containers(self.name)
        )

    def _applied(self) -> str:
        """The hash of what its program has loaded, or loads when it is started."""
        if not self.configured:
            return self.configuration
        try:
            return (self.directory / ".applied").read_text(encoding="utf-8")
        except OSError:
            return ""

    def _wait(self, answers_at: str, seconds: float) -> None:
        """Wait until it is ready or has ended, or ends again; how often it has before does not count."""
        deadline = time.monotonic() + seconds
        before = {found["Id"]: found["RestartCount"] for found in self.project.engine.containers(self.name)}
        while True:
            found = self.project.engine.containers(self.name)
            alive = [c for c in found if _runs_on(c["State"]) and c["RestartCount"] <= before.get(c["Id"], 0)]
            if alive and self._runs() and (not answers_at or try_request(answers_at, "/")):
                return
            if not alive or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        where = f" or does not answer at {answers_at}" if answers_at else ""
        raise EngineError(f"the container does not get ready{where}; its last output:\n{self.last_output()}")


def _runs_on(state: Mapping[str, Any]) -> bool:
    """Whether a container runs, and does not wait for being started again."""
    return bool(state["Running"] and not state["Restarting"])


def other_variables(engine: DockerClient, container: Mapping[str, Any], service: Mapping[str, Any]) -> list[str]:
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
