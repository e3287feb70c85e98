#!/usr/bin/python
"""Keep base images in an engine under their official names: pulled where that is possible, else made from packages."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_images
short_description: Keep base images, pulled or made from Debian's packages
description:
  - Images that are there are left alone, whoever made them, unless they are stand-ins of another recipe.
  - Stand-ins are made with mmdebstrap and the engine's own builder, under the official names, and kept as a tar.
author: The Titanic team (@whitestar)
options:
  images:
    description: Official name of each image by the name of its recipe, in an order in which each can build on the last.
    type: dict
    required: true
  recipes:
    description: Directory with a directory for each recipe; C(debian) holds settings, the others a Dockerfile each.
    type: path
    required: true
  source:
    description: C(pull) asks a registry, C(build) makes stand-ins, C(auto) makes them if no registry answers.
    type: str
    choices: [auto, build, pull]
    default: auto
  cache:
    description: Where the tar with the stand-ins is kept.
    type: path
    required: true
  engine:
    description: The engine (docker_host, bin_directory, docker_config); the one of the environment unless set.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Says which images are missing, and makes none.
    support: full
  diff_mode:
    description: Shows the missing images.
    support: full
"""

EXAMPLES = r"""
- name: Keep the base of Debian and of Python
  lab_images:
    images:
      debian: debian:trixie-slim
      python: python:3.13-slim-trixie
    recipes: "{{ role_path }}/files"
    cache: /var/cache/titanic-lab
"""

RETURN = r"""
images:
  description: Identity of each image by its name; empty for one that is missing in check mode.
  returned: success
  type: dict
origin:
  description: Where the images that were missing came from.
  returned: success
  type: str
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import exclusively, tree_hash

SUITE = "trixie"
TOOLS = ("mmdebstrap", "zstd")
# Raise when this file makes something else of the same recipes.
LAYOUT = 1
LABEL = "titanic.lab.recipe"
AUTHORITIES = Path("/usr/local/share/ca-certificates")
PROBE_SECONDS = 15
STEP_SECONDS = 1200


class ImagesError(RuntimeError):
    """The images could not be had; the message says why."""


def run(command: Sequence[str], environment: Mapping[str, str] | None = None, seconds: float = STEP_SECONDS) -> str:
    """Standard output of ``command``. Raises ImagesError with the end of what it said."""
    try:
        done = subprocess.run(
            list(command),
            env={**os.environ, **(environment or {})},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImagesError(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        raise ImagesError(f"'{shlex.join(command)}' failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


class Engine:
    """The client of an engine; an empty one is that of the environment."""

    def __init__(self, where: Mapping[str, str]) -> None:
        self.client = str(Path(where["bin_directory"]) / "docker") if where.get("bin_directory") else "docker"
        names = {"DOCKER_HOST": "docker_host", "DOCKER_CONFIG": "docker_config"}
        self.environment = {name: where[key] for name, key in names.items() if where.get(key)}

    def __call__(self, *words: str, seconds: float = STEP_SECONDS) -> str:
        """Standard output of ``docker words…``. Raises ImagesError."""
        return run([self.client, *words], self.environment, seconds)

    def inspect(self, names: Sequence[str]) -> dict[str, tuple[str, str | None]]:
        """Identity and recipe (None for an official image) of those of the images that are there."""
        # one call; that some are missing is no error here, and the answer holds the others
        command = [self.client, "image", "inspect", "--format", "{{json .}}", *names]
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=STEP_SECONDS
        )
        if done.returncode and "No such image" not in done.stderr:
            raise ImagesError(f"the engine does not answer: {done.stderr.strip()[-500:]}")
        found: dict[str, tuple[str, str | None]] = {}
        for image in (json.loads(line) for line in done.stdout.splitlines() if line):
            recipe = (image["Config"].get("Labels") or {}).get(LABEL)
            found.update(dict.fromkeys(image["RepoTags"] or [], (image["Id"], recipe)))
        return {name: found[name] for name in names if name in found}


class Images:
    """The images that are wanted, where they are kept, and how they are made."""

    def __init__(self, engine: Engine, images: Mapping[str, str], recipes: Path, cache: Path) -> None:
        self.engine = engine
        self.images = images
        self.recipes = recipes
        digest = hashlib.sha256(f"{LAYOUT} {sorted(images.items())} {tree_hash(recipes, [])}".encode())
        self.recipe = digest.hexdigest()[:12]
        self.saved = cache / "images" / f"{self.recipe}.tar.zst"

    def missing(self, source: str) -> list[str]:
        """Names that the engine lacks, or has as a stand-in where the source forbids it or of an older recipe."""
        kinds: dict[str, set[str | None]] = {"auto": {None, self.recipe}, "build": {self.recipe}, "pull": {None}}
        wanted = kinds[source]
        there = self.engine.inspect(list(self.images.values()))
        return [name for name in self.images.values() if name not in there or there[name][1] not in wanted]

    def make(self, source: str) -> str:
        """Get what is missing, by the best way that is open; returns which it was. Raises ImagesError."""
        if source == "pull" or (source == "auto" and self._registry_answers()):
            for name in self.missing("pull"):
                self.engine("pull", "--quiet", name)
            return "pulled"
        if self.saved.is_file():
            self.engine("load", "--quiet", "--input", str(self.saved))
            if not self.missing("build"):
                return "loaded from the cache"
        self._build()
        return "made from Debian's packages"

    def _registry_answers(self) -> bool:
        try:
            self.engine("manifest", "inspect", next(iter(self.images.values())), seconds=PROBE_SECONDS)
        except ImagesError:
            return False
        return True

    def _build(self) -> None:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise ImagesError("no registry answers, and only root on Debian can make the images from packages")
        if not all(shutil.which(tool) for tool in TOOLS):
            quiet = {"DEBIAN_FRONTEND": "noninteractive"}
            run(["apt-get", "update", "-qq"], quiet)
            run(["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *TOOLS], quiet)
        label = f"{LABEL}={self.recipe}"
        with tempfile.TemporaryDirectory() as work:
            tar = self._debootstrap(Path(work))
            self.engine(
                "import", "--change", 'CMD ["bash"]', "--change", f"LABEL {label}", str(tar), self.images["debian"]
            )
        for recipe, name in self.images.items():
            if recipe != "debian":
                self.engine("build", "--quiet", "--label", label, "--tag", name, str(self.recipes / recipe))
        self._save()

    def _debootstrap(self, work: Path) -> Path:
        tar, extra = work / "root.tar", work / "authorities"
        extra.mkdir()
        for file in AUTHORITIES.glob("*.crt"):
            shutil.copy(file, extra)
        settings = self.recipes / "debian"
        hooks = [
            f"sync-in {shlex.quote(str(extra))} {AUTHORITIES}",
            f"copy-in {shlex.quote(str(settings / 'pip.conf'))} /etc",
            'chroot "$1" update-ca-certificates',
        ]
        options = [
            f"--aptopt={settings / 'apt.conf'}",
            f"--dpkgopt={settings / 'dpkg.conf'}",
            "--include=ca-certificates",
        ]
        options += [f"--customize-hook={hook}" for hook in hooks]
        run(["mmdebstrap", "--quiet", "--variant=minbase", *options, SUITE, str(tar), mirror()])
        return tar

    def _save(self) -> None:
        self.saved.parent.mkdir(parents=True, exist_ok=True)
        plain, packed = self.saved.with_suffix(""), self.saved.with_suffix(".partial")
        self.engine("save", "--output", str(plain), *self.images.values())
        run(["zstd", "--quiet", "--force", "-3", "-T0", "--rm", str(plain), "-o", str(packed)])
        for old in self.saved.parent.glob("*.tar.zst"):
            old.unlink()
        packed.rename(self.saved)


def mirror() -> str:
    """Address of the Debian archive that this machine uses. Raises ImagesError if apt knows none."""
    codename = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    words = ["--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"]
    found = run(["apt-get", "indextargets", *words, f"Codename: {codename[1] if codename else SUITE}"]).split()
    if not found:
        raise ImagesError("apt knows no Debian archive: run apt-get update")
    return found[0]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "dict", "required": True},
            "recipes": {"type": "path", "required": True},
            "source": {"type": "str", "choices": ["auto", "build", "pull"], "default": "auto"},
            "cache": {"type": "path", "required": True},
            "engine": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    options = module.params
    engine, cache = Engine(options["engine"]), Path(options["cache"])
    origin = "there"
    try:
        images = Images(engine, options["images"], Path(options["recipes"]), cache)
        missing = images.missing(options["source"])
        if missing and not module.check_mode:
            with exclusively(cache, STEP_SECONDS):
                origin = images.make(options["source"])
        found = engine.inspect(list(images.images.values()))
    except (ImagesError, OSError, ValueError) as error:
        module.fail_json(msg=f"lab_images: {error}")
    module.exit_json(
        changed=bool(missing),
        images={name: found.get(name, ("", None))[0] for name in images.images.values()},
        origin=origin,
        diff={"before": "", "after": "".join(f"{name}: {origin}\n" for name in missing)},
    )


if __name__ == "__main__":
    main()
