#!/usr/bin/python
"""Keep a container registry on a loopback port of a Debian machine, with the images that it should hold."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_registry
short_description: Keep a throwaway container registry
description:
  - Unpacks Debian's docker-registry beside the system, since the package would start a service on port 5000.
  - Pushes images of an engine below C(library/), where a registry that stands for Docker Hub has them.
author: The Titanic team (@whitestar)
options:
  state:
    description: Whether there is a registry. C(absent) removes it with what it holds.
    type: str
    choices: [present, absent]
    default: present
  directory:
    description: Holds everything of the registry.
    type: path
    required: true
  cache:
    description: Where the downloaded package stays.
    type: path
    required: true
  address:
    description: Loopback address and port on which it listens.
    type: str
    required: true
  images:
    description: Names of images of the engine that the registry holds.
    type: list
    elements: str
    default: []
  engine:
    description: The engine (docker_host, bin_directory, docker_config); the one of the environment unless set.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Says whether a registry would be started or removed and what would be pushed, and does nothing.
    support: full
  diff_mode:
    description: Shows what would be started or pushed.
    support: full
"""

EXAMPLES = r"""
- name: Keep a registry
  lab_registry:
    directory: /var/lib/titanic-lab/registry
    cache: /var/cache/titanic-lab
    address: 127.0.0.1:5055
    images: [python:3.13-slim-trixie]
"""

RETURN = r"""
digests:
  description: Digest of each image in the registry by its name; those that are not there are left out.
  returned: when O(state=present)
  type: dict
"""

import http.client
import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    exclusively,
    json_bytes,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Daemon

PACKAGE = "docker-registry"
MANIFESTS = ", ".join(
    f"application/vnd.{kind}"
    for kind in ("docker.distribution.manifest.v2+json", "oci.image.manifest.v1+json", "oci.image.index.v1+json")
)
START_SECONDS = 20
STOP_SECONDS = 5
ANSWER_SECONDS = 5
STEP_SECONDS = 600


class RegistryError(RuntimeError):
    """The registry could not be brought to the state that was asked for; the message says why."""


def run(command: Sequence[str], where: Path = Path("/"), environment: Mapping[str, str] | None = None) -> str:
    """Standard output of ``command``, run in ``where``. Raises RegistryError with the end of what it said."""
    try:
        done = subprocess.run(
            list(command),
            env={**os.environ, **(environment or {})},
            cwd=where,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RegistryError(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        raise RegistryError(f"'{shlex.join(command)}' failed: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout


class Engine:
    """The client of an engine; an empty one is that of the environment."""

    def __init__(self, where: Mapping[str, str]) -> None:
        self.client = str(Path(where["bin_directory"]) / "docker") if where.get("bin_directory") else "docker"
        names = {"DOCKER_HOST": "docker_host", "DOCKER_CONFIG": "docker_config"}
        self.environment = {name: where[key] for name, key in names.items() if where.get(key)}

    def __call__(self, *words: str) -> str:
        """Standard output of ``docker words…``. Raises RegistryError."""
        return run([self.client, *words], environment=self.environment)


class Registry:
    """A registry in one directory."""

    def __init__(self, directory: Path, cache: Path, address: str, engine: Engine) -> None:
        self.directory = directory
        self.kept = cache / "packages" / PACKAGE
        self.address = address
        self.engine = engine
        self.program = directory / "root/usr/bin/docker-registry"
        self.settings = directory / "config.json"
        self.daemon = Daemon(directory, "registry", directory / "registry.log")

    def ready(self) -> bool:
        """Whether it is installed, configured as it should be, running and answering."""
        configured = self.settings.is_file() and self.settings.read_bytes() == self._settings()
        return configured and self.daemon.process() is not None and self._ask("/v2/")[0] == 200

    def start(self) -> None:
        """Install, configure and start it anew. Raises RegistryError with the end of its log."""
        self.daemon.stop(STOP_SECONDS)
        host, _, port = self.address.rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), ANSWER_SECONDS):
            raise RegistryError(
                f"{self.address}: address already in use, and not by this registry: choose another port"
            )
        if not self.program.is_file():
            self._unpack()
        write_atomically(self.settings, self._settings(), 0o644)
        command = [str(self.program), "serve", str(self.settings)]
        process = self.daemon.start(command, {"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"}, {})
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if not process.alive() or time.monotonic() > deadline:
                raise RegistryError(f"it did not come up on {self.address}, its log ends:\n{self.daemon.log_tail()}")
            time.sleep(0.05)

    def absent(self) -> None:
        """Stop it and remove its directory."""
        self.daemon.stop(STOP_SECONDS)
        shutil.rmtree(self.directory)
        with suppress(OSError):  # the lab's own directory, once it is empty
            self.directory.parent.rmdir()

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """Digest of those of the images that the registry holds exactly as the engine has them."""
        found = {}
        for name in names:
            try:
                identity = self.engine("image", "inspect", "--format", "{{.Id}}", name).strip()
            except RegistryError:
                continue
            repository, _, tag = _familiar(name).rpartition(":")
            status, digest, body = self._ask(f"/v2/{repository}/manifests/{tag}")
            # what an engine calls an image's identity is the digest of its configuration or of its manifest
            if status == 200 and identity in (digest, json.loads(body).get("config", {}).get("digest")):
                found[name] = digest
        return found

    def push(self, name: str) -> None:
        """Push an image of the engine; it has no further name there afterwards. Raises RegistryError."""
        target = f"{self.address}/{_familiar(name)}"
        self.engine("tag", name, target)
        try:
            self.engine("push", "--quiet", target)
        finally:
            self.engine("rmi", "--no-prune", target)

    def _settings(self) -> bytes:
        return json_bytes(
            {
                "version": "0.1",
                "log": {"level": "warn", "accesslog": {"disabled": True}},
                "storage": {
                    "filesystem": {"rootdirectory": str(self.directory / "data")},
                    "delete": {"enabled": True},
                },
                "http": {"addr": self.address},
            }
        )

    def _unpack(self) -> None:
        if not list(self.kept.glob("*.deb")):
            self.kept.mkdir(parents=True, exist_ok=True)
            download = ["apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", PACKAGE]
            try:
                run(download, self.kept)
            except RegistryError:
                run(["apt-get", "update", "-qq"])
                run(download, self.kept)
        for file in self.kept.glob("*.deb"):
            run(["dpkg-deb", "--extract", str(file), str(self.directory / "root")])

    def _ask(self, path: str) -> tuple[int, str, bytes]:
        """Status, digest and body of what the registry answers; status 0 when it does not."""
        connection = http.client.HTTPConnection(self.address, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", path, headers={"Accept": MANIFESTS})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Docker-Content-Digest", ""), answer.read()
        except (OSError, http.client.HTTPException):
            return 0, "", b""
        finally:
            connection.close()


def _familiar(name: str) -> str:
    """Name of an image as Docker Hub has it: official images live below ``library/``."""
    return name if "/" in name else f"library/{name}"


def present(module: AnsibleModule, registry: Registry) -> tuple[list[str], dict[str, str]]:
    """What was to do, in words, and the digests."""
    names: list[str] = module.params["images"]
    done = []
    if not registry.ready():
        done.append(f"start a registry on {registry.address}")
        if not module.check_mode:
            registry.start()
    digests = registry.digests(names)
    for name in names:
        if name not in digests:
            done.append(f"push {name}")
            if not module.check_mode:
                registry.push(name)
    return done, registry.digests(names) if done else digests


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "directory": {"type": "path", "required": True},
            "cache": {"type": "path", "required": True},
            "address": {"type": "str", "required": True},
            "images": {"type": "list", "elements": "str", "default": []},
            "engine": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    options, directory = module.params, Path(module.params["directory"])
    registry = Registry(directory, Path(options["cache"]), options["address"], Engine(options["engine"]))
    digests: dict[str, str] = {}
    try:
        if options["state"] == "absent":
            done = [f"remove {directory}"] if directory.exists() else []
            if done and not module.check_mode:
                registry.absent()
        elif module.check_mode:
            done, digests = present(module, registry)
        else:
            with exclusively(directory):
                done, digests = present(module, registry)
    except (RegistryError, OSError, ValueError) as error:
        module.fail_json(msg=f"lab_registry: {error}")
    after = "".join(f"{step}\n" for step in done)
    module.exit_json(changed=bool(done), digests=digests, diff={"before": "", "after": after})


if __name__ == "__main__":
    main()
