# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker engine from the distribution's own packages: whether they will do on this host, installed and started."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import (
    DockerClient,
    EngineError,
    engine_problems,
)

VARIABLE = "titanic_engine_install"
# First release with packages that are new enough (packages.debian.org, packages.ubuntu.com), and what they are called.
DISTRIBUTIONS = {
    "debian": ((13,), ("docker.io", "docker-cli", "docker-compose", "docker-buildx")),
    "ubuntu": ((24, 4), ("docker.io", "docker-compose-v2", "docker-buildx")),
}
# What the engine only recommends: its confinement, and whom to trust when images are fetched.
RECOMMENDED = ("apparmor", "ca-certificates")
# A release of Debian that is not out yet has no number.
UNNUMBERED = (999,)
SOCKET = "var/run/docker.sock"
PROGRAMS = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "snap/bin")
# Waits for others who install, and keeps files that the host has configured already.
APT = ("apt-get", "--quiet", "--yes", "--option", "DPkg::Lock::Timeout=300")
INSTALL = (*APT, "--option", "DPkg::Options::=--force-confold", "--no-install-recommends", "--no-remove", "install")
INSTALL_SECONDS = 1200
START_SECONDS = 90


@dataclass(frozen=True)
class Host:
    """The system that the packages are for; ``root`` is where its files are."""

    root: Path = Path("/")

    def release(self) -> dict[str, str]:
        """What os-release says, by name; empty where there is none."""
        try:
            text = (self.root / "etc/os-release").read_text(encoding="utf-8")
        except OSError:
            return {}
        return dict(re.findall(r"""^([A-Z_]+)=["']?(.*?)["']?$""", text, re.MULTILINE))

    def packages(self) -> tuple[str, ...]:
        """The packages of this distribution that are new enough; none where its own are not."""
        release = self.release()
        oldest, names = DISTRIBUTIONS.get(release.get("ID", ""), (UNNUMBERED, ()))
        number = tuple(map(int, re.findall(r"\d+", release.get("VERSION_ID", "")))) or UNNUMBERED
        return (*names, *RECOMMENDED) if names and number >= oldest else ()

    def missing(self) -> list[str]:
        """Those of the packages that are not installed."""
        names = self.packages()
        form = ["--show", "--showformat", "${Package} ${db:Status-Status}\\n"]
        question = ["dpkg-query", "--admindir", str(self.root / "var/lib/dpkg"), *form, *names]
        # It fails where a package is unknown, and says the rest nevertheless.
        said = subprocess.run(question, capture_output=True, text=True, check=False).stdout if names else ""
        there = {line.split()[0] for line in said.splitlines() if line.endswith(" installed")}
        return [name for name in names if name not in there]

    def problems(self, engine: DockerClient) -> list[str]:
        """One sentence for each reason why the packages will not do here, with the variable and the remedy."""
        found = []
        if os.geteuid() != 0:
            found.append(f"{VARIABLE}: only root installs packages, this is uid {os.geteuid()}. Set ansible_become.")
        if os.path.realpath(engine.socket) != os.path.realpath(self.root / SOCKET):
            found.append(
                f"{VARIABLE}: the packages' engine answers at /{SOCKET}, not at {engine.socket}. "
                "Name the packages' socket in titanic_engine."
            )
        if not self.packages():
            name = self.release().get("PRETTY_NAME", "this system")
            found.append(
                f"{VARIABLE}: {name} has no packages that are new enough (Debian has them from 13 on, Ubuntu from "
                f"24.04 on). Install Docker's own, see docs.docker.com/engine/install."
            )
        elif (other := self._other_engine()) and "docker.io" in self.missing():
            found.append(f"{VARIABLE}: there is another engine, {other}. Start or update that one, or remove it.")
        return found

    def _other_engine(self) -> Path | None:
        """An engine's program, whoever installed it."""
        places = (self.root / directory / "dockerd" for directory in PROGRAMS)
        return next((path for path in places if path.exists()), None)


def run(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command of the system to its end, whatever that is. Raises EngineError if that never comes."""
    try:
        return subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"'{shlex.join(command)}' did not finish: {error}") from error


def succeed(command: Sequence[str], seconds: float) -> None:
    """Run a command that must succeed. Raises EngineError with its words."""
    done = run(command, seconds)
    if done.returncode:
        raise EngineError(f"'{shlex.join(command)}' failed: {done.stdout.strip()[-2000:] or 'it said nothing'}")


def install(names: Sequence[str]) -> None:
    """Install packages, and remove none for them. Raises EngineError with the words of apt."""
    # What a run that was killed has left half done; where that is not possible apt says so.
    run(("dpkg", "--configure", "--pending"), INSTALL_SECONDS)
    for command in ((*APT, "update"), (*INSTALL, *names)):
        succeed(command, INSTALL_SECONDS)


def answers(engine: DockerClient) -> bool:
    """Whether an engine answers there."""
    try:
        return bool(engine.get("/version"))
    except EngineError:
        return False


def start(engine: DockerClient) -> None:
    """Start the service, now and at each boot, and wait until it answers. Raises EngineError."""
    systemd = Path("/run/systemd/system").is_dir()
    command = ("systemctl", "enable", "--now", "docker.service") if systemd else ("service", "docker", "start")
    succeed(command, START_SECONDS)
    deadline = time.monotonic() + START_SECONDS
    while not answers(engine):
        if time.monotonic() > deadline:
            words = f"no engine answers at {engine.socket} {START_SECONDS} s after '{shlex.join(command)}'"
            raise EngineError(f"{words}. See journalctl --unit docker, or /var/log/docker.log.")
        time.sleep(0.2)


def lasting_problems(engine: DockerClient, host: Host) -> list[str]:
    """Why nothing can be deployed with this engine even after what it lacks has been installed from packages."""
    lacks = engine_problems(engine)
    if not lacks:
        return []
    if refused := host.problems(engine):
        return refused
    # What the packages have given already will not get newer.
    return lacks if answers(engine) and not host.missing() else []
