# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to an image beside its content: platforms, a bill of materials, provenance, a gate, a registry."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    json_bytes,
    read_json,
    tree_hash,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.package_index import build_secrets
from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, EngineError, pinned

SBOM = "sbom.cdx.json"
PROVENANCE = "provenance.json"
SBOM_STAGE = re.compile(r"^\s*FROM\s.*\sAS\s+sbom\s*$", re.IGNORECASE | re.MULTILINE)
# How BuildKit's plain output names a base image: "#7 [base 1/2] FROM docker.io/library/python:3.13@sha256:…".
BASE_IMAGE = re.compile(r"^#\d+ \[[^]]*] FROM (\S+)$", re.MULTILINE)
# A step of it: "#12 [stage-1 3/7] RUN pip install …".
STEP = re.compile(r"#\d+ (\[.+)")
IN_TOTO = "https://in-toto.io/Statement/v1"
SLSA = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://github.com/whitestar/titanic/compose_image@v1"

# Python 3.11.2, which is Debian 12's, has no filters yet (PEP 706); the archive is our own.
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
# The time of an image, 1980-01-01: one source is one image, whenever it is built.
EPOCH = 315532800
TWENTY_YEARS_NS = 20 * 365 * 86400 * 10**9


class RefusedError(RuntimeError):
    """The image may not serve; the message names the variable and the remedy."""


class InputError(RefusedError):
    """What is asked for cannot be had here; nothing has been tried, so no release has failed."""


def _time_of(file: Path) -> int:
    """A number of nanoseconds in twenty years, another for another content.

    BuildKit takes a file of the same size and time for the one that it was sent before, whatever is in it.
    """
    return int.from_bytes(hashlib.sha256(file.read_bytes()).digest()[:16], "big") % TWENTY_YEARS_NS


@dataclass(frozen=True)
class Source:
    """What is built: a directory with ``context/`` and ``Dockerfile``; with which arguments, for which platforms."""

    directory: Path
    arguments: Mapping[str, Any]
    platforms: Sequence[str]

    @property
    def dockerfile(self) -> Path:
        """The Dockerfile."""
        return self.directory / "Dockerfile"

    def unpack(self, archive: str) -> None:
        """Take it out of the action plugin's archive, and give each file a time that follows from what is in it."""
        with tarfile.open(archive) as tar:
            tar.extractall(self.directory, **SAFELY)  # noqa: S202 - our own archive
        for path in (self.directory, *self.directory.rglob("*")):
            at = EPOCH * 10**9 + (_time_of(path) if path.is_file() and not path.is_symlink() else 0)
            os.utime(path, ns=(at, at), follow_symlinks=False)

    def build(self, client: DockerClient, *options: str, seconds: float) -> str:
        """Build it: what BuildKit said. Raises EngineError with that."""
        words = ["buildx", "build", "--progress", "plain", "--provenance", "false", *options]
        for name, value in {"SOURCE_DATE_EPOCH": EPOCH, **self.arguments}.items():
            words += ["--build-arg", f"{name}={value}"]
        words += ["--file", str(self.dockerfile), str(self.directory / "context")]
        with tempfile.TemporaryDirectory() as scratch:
            words += build_secrets(os.environ, Path(scratch))
            return client.follow(words, seconds, report_step)

    def write_sbom(self, client: DockerClient, directory: Path, *options: str, seconds: float) -> None:
        """Have the Dockerfile's stage ``sbom`` put its file into ``directory``; nothing to do if it has none."""
        if SBOM_STAGE.search(self.dockerfile.read_text(encoding="utf-8")):
            with tempfile.TemporaryDirectory() as scratch:
                self.build(client, "--target", "sbom", "--output", scratch, *options, seconds=seconds)
                written = Path(scratch, SBOM)
                if not written.is_file():
                    raise EngineError(f"the Dockerfile's stage sbom holds no file {SBOM}. Have the stage write one.")
                bill = written.read_bytes()
                if not has_content(directory / SBOM, bill, 0o644):
                    write_atomically(directory / SBOM, bill, 0o644)


def report_step(line: str) -> None:
    """Tell of a line of BuildKit's plain output, if a step begins with it."""
    if found := STEP.match(line):
        report(found[1])


def platform_problem(engine: DockerClient, platforms: Sequence[str]) -> str:
    """Why no image for these platforms can be made here and run here, with the remedy; empty if one can."""
    version = engine.get("/version")
    own = f"{version['Os']}/{version['Arch']}"
    if not any(_covers(platform, own) for platform in platforms):
        return f"{own}, which this engine runs, is not among {', '.join(platforms)}. Add it."
    said = engine.run("buildx", "inspect", seconds=60)
    facts = dict(re.findall(r"^(Name|Driver|Platforms): +(.+?) *$", said, re.MULTILINE))
    makes = re.split(r"[*, ]+", facts.get("Platforms", ""))
    builder = f"the builder {facts.get('Name', '')}"
    if missing := [platform for platform in platforms if not any(_covers(platform, made) for made in makes)]:
        return (
            f"{builder} cannot make {', '.join(missing)} (only {', '.join(filter(None, makes))}). Install emulation on "
            "the host (QEMU and binfmt_misc), or choose a builder that has it with 'docker buildx use'."
        )
    status = dict(pair for pair in engine.get("/info").get("DriverStatus") or [] if len(pair) == 2)
    snapshots = "containerd" in status.get("driver-type", "")
    if len(platforms) > 1 and facts.get("Driver") == "docker" and not snapshots:
        return (
            f"{builder} keeps one platform for each image. Turn on the engine's containerd image store, or make a "
            "builder that has its own with 'docker buildx create --use'."
        )
    return ""


def require_platforms(engine: DockerClient, platforms: Sequence[str]) -> None:
    """Refuse platforms that no image can be made for here. Raises InputError, EngineError."""
    if platforms and (problem := platform_problem(engine, platforms)):
        raise InputError(f"titanic_image_platforms: {problem}")


def _covers(platform: str, other: str) -> bool:
    """Whether both are one operating system and architecture; a variant that only one has does not count."""
    one, two = platform.split("/"), other.split("/")
    return one[:2] == two[:2] and (one[2:] == two[2:] or not one[2:] or not two[2:])


def pass_gate(command: Sequence[str], engine: DockerClient, image: str, sbom: Path, seconds: float) -> None:
    """Run the command that judges an image, with ``{image}`` and ``{sbom}`` replaced. Raises RefusedError."""
    name = "titanic_image_scan_command"
    if any("{sbom}" in word for word in command) and not sbom.is_file():
        raise RefusedError(
            f"{name}: there is no bill of materials. Give the Dockerfile a stage sbom, or use {{image}}."
        )
    words = [word.replace("{image}", image).replace("{sbom}", str(sbom)) for word in command]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            timeout=seconds,
            env=engine.environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise RefusedError(f"{name}: {shlex.join(words)} took longer than {seconds:g} s") from error
    except OSError as error:
        problem = f"{words[0]} cannot be run on the target ({error.strerror}). Install it there, or leave it out."
        raise RefusedError(f"{name}: {problem}") from error
    if done.returncode:
        said = done.stdout.strip()[-2000:]
        raise RefusedError(f"{name}: {shlex.join(words)} refuses {image} ({done.returncode}): {said}")


def registry_of(repository: str) -> str:
    """The registry that an image's name means: its first part if that is a host, otherwise Docker Hub."""
    first, _, rest = repository.partition("/")
    return first if rest and (re.search(r"[.:]", first) or first == "localhost") else "docker.io"


@contextmanager
def logged_in(engine: DockerClient, repository: str, login: Mapping[str, str] | None) -> Iterator[DockerClient]:
    """The engine with a client configuration that has this ``login`` (username, password), removed afterwards.

    Builds get the proxies of the usual configuration. The engine as it is without a login. The password goes over
    standard input. Raises InputError.
    """
    if not login:
        yield engine
        return
    usual = Path(engine.configuration) if engine.configuration else Path.home() / ".docker"
    with tempfile.TemporaryDirectory() as configuration:
        for name in ("cli-plugins", "buildx"):
            if (usual / name).is_dir():
                Path(configuration, name).symlink_to(usual / name)
        proxies = read_json(usual / "config.json", {}).get("proxies", {})
        Path(configuration, "config.json").write_bytes(json_bytes({"proxies": proxies}))
        client = dataclasses.replace(engine, configuration=configuration)
        registry = registry_of(repository)
        try:
            words = ["login", "--username", login["username"], "--password-stdin", registry]
            client.finish(words, standard_input=login["password"])
        except EngineError as error:
            raise InputError(f"titanic_image_registry_login: {registry} does not take it: {error}") from error
        yield client


def provenance(
    engine: DockerClient, source: Source, subject: Mapping[str, str], sbom: Path, said: str, began: str
) -> bytes:
    """Who made an image of what: an in-toto statement with SLSA provenance 1.0, as JSON.

    ``subject`` has the image's name and its ``sha256``; ``said`` is what BuildKit printed, ``began`` a UTC time.
    """
    ingredients = [
        {"name": "context", "digest": {"sha256": tree_hash(source.directory / "context", [])}},
        {"name": "Dockerfile", "digest": {"sha256": _sha256(source.dockerfile)}},
    ]
    for name in sorted(set(BASE_IMAGE.findall(said))):
        found = name if "@" in name else pinned(engine, name, pull=False)
        ingredients.append({"name": name.partition("@")[0], "digest": {"sha256": found.rpartition(":")[2]}})
    version = engine.get("/version")["Version"]
    return json_bytes(
        {
            "_type": IN_TOTO,
            "subject": [{"name": subject["name"], "digest": {"sha256": subject["sha256"]}}],
            "predicateType": SLSA,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "buildArguments": dict(source.arguments),
                        "platforms": list(source.platforms),
                    },
                    "resolvedDependencies": ingredients,
                },
                "runDetails": {
                    "builder": {"id": BUILD_TYPE, "version": {"docker": version}},
                    "metadata": {"startedOn": began, "finishedOn": utc_now()},
                    "byproducts": [{"name": SBOM, "digest": {"sha256": _sha256(sbom)}}] if sbom.is_file() else [],
                },
            },
        }
    )


def utc_now() -> str:
    """The time as SLSA writes it (RFC 3339)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(pusher: DockerClient, tag: str, repository: str) -> str:
    """The reference by digest of an image that a registry has; empty if it has none."""
    digests = [str(found) for found in (pusher.image(tag) or {}).get("RepoDigests") or []]
    # The engine leaves out what is understood.
    name = repository.removeprefix("docker.io/").removeprefix("library/")
    return next((found for found in digests if found.startswith(f"{name}@")), "")


def described(engine: DockerClient, reference: str, command: list[str]) -> dict[str, Any]:
    """What the image says that it is. Raises EngineError if that is no JSON object."""
    done = engine.run_container(reference, command, "--network", "none", seconds=60)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if done.returncode or not isinstance(found, dict):
        said = (done.stdout + done.stderr).strip()[:500]
        raise EngineError(f"'{' '.join(command)}' in the image must print a JSON object, it printed: {said}")
    return found
