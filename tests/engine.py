"""The Docker engine that tests of the compose provider use: the one that the command ``docker`` talks to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT_LABEL = "com.docker.compose.project"
CLIENT_SECONDS = 400


@dataclass(frozen=True)
class Engine:
    """An engine that answers. ``variables`` is what tells the collection of it."""

    program: str
    socket: str
    configuration: str

    @classmethod
    def found(cls) -> Engine:
        """The engine of ``DOCKER_HOST``, or the usual one. Raises LookupError with the reason why there is none."""
        program = shutil.which("docker")
        if program is None:
            raise LookupError("there is no command docker (make lab brings up an engine; source its environment)")
        host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if not host.startswith("unix://"):
            raise LookupError(f"the engine {host} is not one of this machine, which the tests look into")
        engine = cls(program, host.removeprefix("unix://"), os.environ.get("DOCKER_CONFIG", ""))
        asked = engine.run("version", "--format", "{{.Server.Version}}")
        if asked.returncode:
            raise LookupError(f"no Docker engine answers at {host}: {asked.stderr.strip()}")
        return engine

    @property
    def variables(self) -> dict[str, Any]:
        """Variables of the collection that name this engine."""
        named = {"socket": self.socket, "program": self.program}
        return {"titanic_engine": named | ({"configuration": self.configuration} if self.configuration else {})}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What became of ``docker words…``, whatever its exit status."""
        return subprocess.run([self.program, *words], capture_output=True, text=True, timeout=CLIENT_SECONDS)

    def __call__(self, *words: str) -> str:
        """Standard output of ``docker words…``, which must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-2000:]}"
        return done.stdout.strip()

    def inspect(self, kind: str, *names: str) -> list[dict[str, Any]]:
        """What the engine knows of containers, images, networks or volumes."""
        found: list[dict[str, Any]] = json.loads(self(kind, "inspect", *names)) if names else []
        return found

    def containers(self, project: str, service: str = "") -> list[str]:
        """Ids of a project's containers, running or not, or of one of its services."""
        labels = [f"{PROJECT_LABEL}={project}"] + ([f"com.docker.compose.service={service}"] if service else [])
        words = [word for label in labels for word in ("--filter", f"label={label}")]
        return self("ps", "--all", "--quiet", "--no-trunc", *words).split()

    def images(self, repository: str) -> list[str]:
        """Names of the images in a repository, each with its tag."""
        return self("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository).split()

    def left(self, project: str, repository: str) -> list[str]:
        """Everything of a project that is still there: containers, networks, volumes, and images in its repository."""
        found = [f"container {name}" for name in self.containers(project)]
        for kind in ("network", "volume"):
            listed = self(kind, "ls", "--format", "{{.Name}}", "--filter", f"label={PROJECT_LABEL}={project}")
            found += [f"{kind} {name}" for name in listed.split()]
        return found + [f"image {name}" for name in self.images(repository)]

    def clear(self, project: str, repository: str) -> None:
        """Remove what is left of a project after a failure."""
        for kind, removal in (
            ("container", ["rm", "-fv"]),
            ("network", ["network", "rm"]),
            ("volume", ["volume", "rm"]),
        ):
            names = [
                word
                for said in self.left(project, repository)
                for what, _, word in [said.partition(" ")]
                if what == kind
            ]
            if names:
                self.run(*removal, *names)
        if images := self.images(repository):
            self.run("rmi", "-f", *images)


def process_in(pid: int, container: str) -> bool:
    """Whether a process of this machine is one of the container's, which only an engine on this machine can have."""
    try:
        return container in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False
