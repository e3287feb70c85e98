"""A lab with a Docker engine for the tests of the image, and the image built in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LAB_SECONDS = 500
STEP_SECONDS = 400
RUN_ID = uuid.uuid4().hex[:8]
LABEL = f"titanic.test={RUN_ID}"
# What the image is told of itself; the time is any that is not now.
EPOCH = "1700000000"
ARGUMENTS = {"VERSION": "9.8.7", "REVISION": "0123abc", "SOURCE_DATE_EPOCH": EPOCH}


@dataclass(frozen=True)
class Docker:
    """The command docker, talking to the lab's engine."""

    environment: dict[str, str]

    def run(
        self, *words: str, text: str | None = None, seconds: float = STEP_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """What became of ``docker words…``, whatever its exit status."""
        return subprocess.run(
            ["docker", *words], env=self.environment, capture_output=True, text=True, input=text, timeout=seconds
        )

    def __call__(self, *words: str, text: str | None = None) -> str:
        """Standard output of ``docker words…``, which must succeed."""
        done = self.run(*words, text=text)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-3000:]}"
        return done.stdout.strip()

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """What the engine knows of an image, a container or a network."""
        found: list[dict[str, Any]] = json.loads(self(kind, "inspect", name))
        return found[0]

    def build(self, root: Path, context: Path, name: str, *options: str) -> dict[str, Any]:
        """Builds the Dockerfile of the checkout with a context, as the collection does; returns the image."""
        arguments = [word for key, value in ARGUMENTS.items() for word in ("--build-arg", f"{key}={value}")]
        tag = f"titanic-test:{name}-{RUN_ID}"
        self("build", "--quiet", *arguments, *options, "--tag", tag, "--file", str(root / "Dockerfile"), str(context))
        return {"name": tag, **self.inspect("image", tag)}


def can_have_an_engine() -> bool:
    """Whether the lab can be brought up here: as root on Debian, or where an engine is at hand."""
    if os.geteuid() == 0 and Path("/etc/debian_version").is_file():
        return True
    return bool(shutil.which("docker")) and subprocess.run(["docker", "version"], capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def docker(root: Path) -> Iterator[Docker]:
    """The lab's engine; what a test leaves in it goes, the lab itself stays for the next."""
    if not can_have_an_engine():
        pytest.skip("a Docker engine, or root on Debian to start one, is needed")
    environment = Path("/var/lib/titanic-lab/engine/environment")  # where lab_engine_directory has it by default
    if not environment.is_file():  # a step of the suite has brought it up
        command = ["ansible-playbook", "playbooks/lab-up.yml"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=LAB_SECONDS)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    variables = 'set -a; . "$1"; exec env -0'
    listed = subprocess.run(["sh", "-c", variables, "sh", environment], capture_output=True, check=True)
    client = Docker(dict(line.split("=", 1) for line in listed.stdout.decode().split("\0") if line))
    yield client
    for kind, remove in (("container", ["rm", "-fv"]), ("network", ["network", "rm"])):
        with suppress(AssertionError):
            found = client(kind, "ls", "-q", *(["-a"] if kind == "container" else []), "--filter", f"label={LABEL}")
            if found:
                client(*remove, *found.split())
    tags = client("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "titanic-test")
    mine = [tag for tag in tags.split() if tag.endswith(RUN_ID)]
    if mine:
        client.run("rmi", "-f", *mine)


@pytest.fixture(scope="session")
def image(docker: Docker, root: Path) -> dict[str, Any]:
    """The image of this checkout, as the engine describes it."""
    return docker.build(root, root / "service", "image")
