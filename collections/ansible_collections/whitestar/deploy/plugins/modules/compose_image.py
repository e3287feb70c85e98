#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a release's image with the target's engine, when what goes into it is new."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_image
short_description: Build a release as a container image
description:
  - An action plugin on the controller names the release by the hash of everything that goes into it (C(context),
    C(dockerfile), build arguments) and sends the context only when the target has no image of that name.
  - The target builds it with BuildKit, and records reference and description. With O(registry) the image is pushed
    there and referred to by its digest, otherwise by its id.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.engine
options:
  directory:
    description: Directory on the target where releases are recorded, one below it for each.
    type: path
    required: true
  context:
    description: Directory on the controller that is the build context.
    type: path
    required: true
  dockerfile:
    description: Dockerfile on the controller; its ignore file lies beside it as C(NAME.dockerignore).
    type: path
    required: true
  exclude:
    description: Shell patterns of what neither is sent nor makes another release when it changes.
    type: list
    elements: str
    default: []
  repository:
    description: Name of the image without tag, such as C(titanic) or C(registry.example.org/titanic).
    type: str
    required: true
  push:
    description: Whether to push it to the registry that O(repository) names.
    type: bool
    default: false
  build_arguments:
    description: Arguments of the build. No secrets.
    type: dict
    default: {}
  describe:
    description: Command in the image that prints what it is, as a JSON object.
    type: list
    elements: str
    default: []
  identity:
    description: Set by the action plugin.
    type: str
  archive:
    description: Set by the action plugin.
    type: path
  seconds:
    description: How long the build may take, in seconds.
    type: float
    default: 1800
attributes:
  check_mode:
    description: Says whether the image would be built.
    support: full
  diff_mode:
    description: Names the image.
    support: full
"""

EXAMPLES = r"""
- name: Build the release
  whitestar.deploy.compose_image:
    engine: {socket: /var/run/docker.sock, program: docker, project: titanic}
    directory: /var/lib/titanic/images
    context: service
    dockerfile: Dockerfile
    repository: titanic
"""

RETURN = r"""
image:
  description: What was built.
  returned: success
  type: dict
  contains:
    reference: {description: "Digest or, without a registry, id of the image; empty while it is not built.", type: str}
    identity: {description: "Its name, 12 hexadecimal digits.", type: str}
    description: {description: What O(describe) printed; empty while it is not built., type: dict}
needs_context:
  description: Whether the module must be called again with the context, as the action plugin does.
  returned: success
  type: bool
"""

import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.compose import ENGINE_OPTION, Engine, EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.files import (
    exclusively,
    json_bytes,
    read_json,
    write_atomically,
)

MARKER = "image.json"
# Python 3.11.2, which is Debian 12's, has no filters yet (PEP 706); the archive is our own.
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def recorded(engine: Engine, directory: Path, repository: str, *, push: bool) -> dict[str, Any]:
    """What was recorded of an image that the engine still has under this name, pushed if asked for; empty otherwise."""
    found = read_json(directory / MARKER, {})
    if not isinstance(found, dict) or (found.get("repository"), found.get("pushed")) != (repository, push):
        return {}
    return found if engine.image(found["reference"]) else {}


def build(engine: Engine, options: dict[str, Any]) -> dict[str, Any]:
    """Build the image from the archive and say what to record. Raises EngineError with BuildKit's words."""
    tag = f"{options['repository']}:{options['identity']}"
    there = engine.image(tag)
    words = ["buildx", "build", "--load", "--provenance", "false", "--tag", tag]
    for name, value in options["build_arguments"].items():
        words += ["--build-arg", f"{name}={value}"]
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(options["archive"]) as archive:
            archive.extractall(scratch, **SAFELY)  # noqa: S202 - our own archive
        place = Path(scratch)
        engine.run(*words, "--file", str(place / "Dockerfile"), str(place / "context"), seconds=options["seconds"])
    tags = [tag]
    reference = str((engine.image(tag) or {}).get("Id", ""))
    try:
        description = described(engine, reference, options["describe"]) if options["describe"] else {}
        if version := description.get("version"):
            engine.run("tag", tag, f"{options['repository']}:{version}")
            tags.append(f"{options['repository']}:{version}")
        if options["push"]:
            reference = pushed(engine, options, tags)
    except EngineError:
        # Nothing is recorded, so nobody would ever remove it; one that was there may be a release's.
        if not there:
            engine.run("image", "rm", *tags)
        raise
    return {
        "identity": options["identity"],
        "reference": reference,
        "repository": options["repository"],
        "pushed": options["push"],
        "tags": tags,
        "description": description,
    }


def pushed(engine: Engine, options: dict[str, Any], tags: list[str]) -> str:
    """Push an image by all of its tags; what the registry refers to it by. Raises EngineError."""
    for name in tags:
        engine.run("push", "--quiet", name, seconds=options["seconds"])
    digests = [str(digest) for digest in (engine.image(tags[0]) or {}).get("RepoDigests") or []]
    # The engine leaves out what is understood.
    name = options["repository"].removeprefix("docker.io/").removeprefix("library/")
    reference = next((digest for digest in digests if digest.startswith(f"{name}@")), "")
    if not reference:
        raise EngineError(f"the registry of {options['repository']} has given no digest")
    return reference


def described(engine: Engine, reference: str, command: list[str]) -> dict[str, Any]:
    """What the image says that it is. Raises EngineError if that is no JSON object."""
    done = engine.once(reference, command, "--network", "none", seconds=60)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if done.returncode or not isinstance(found, dict):
        said = (done.stdout + done.stderr).strip()[:500]
        raise EngineError(f"'{' '.join(command)}' in the image must print a JSON object, it printed: {said}")
    return found


def main() -> None:
    """Run the module."""
    path = {"type": "path", "required": True}
    words = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "engine": ENGINE_OPTION,
            "directory": path,
            "context": path,
            "dockerfile": path,
            "exclude": words,
            "repository": {"type": "str", "required": True},
            "push": {"type": "bool", "default": False},
            "build_arguments": {"type": "dict", "default": {}},
            "describe": words,
            "identity": {"type": "str"},
            "archive": {"type": "path"},
            "seconds": {"type": "float", "default": 1800},
        },
        supports_check_mode=True,
    )
    options = module.params
    engine = Engine.of(options["engine"])
    directory = Path(options["directory"]) / options["identity"]
    needs_context = False
    try:
        image = recorded(engine, directory, options["repository"], push=options["push"])
        changed = not image
        if changed and not module.check_mode:
            needs_context = not options["archive"]
            if not needs_context:
                with exclusively(directory.parent):
                    image = recorded(engine, directory, options["repository"], push=options["push"]) or build(
                        engine, options
                    )
                    directory.mkdir(exist_ok=True)
                    write_atomically(directory / MARKER, json_bytes(image), 0o644)
    except (EngineError, OSError, ValueError, tarfile.TarError) as error:
        if not (directory / MARKER).exists():
            shutil.rmtree(directory, ignore_errors=True)
        module.fail_json(msg=f"the release could not be built, nothing else was touched: {error}")
    name = f"{options['repository']}:{options['identity']}\n"
    module.exit_json(
        changed=changed,
        needs_context=needs_context,
        image={
            "reference": image.get("reference", ""),
            "identity": options["identity"],
            "description": image.get("description", {}),
        },
        diff={"before": "" if changed else name, "after": name},
    )


if __name__ == "__main__":
    main()
