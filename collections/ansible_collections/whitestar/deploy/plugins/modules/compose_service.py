#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep one service of a Compose project as it should be, asking the engine before telling it anything."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_service
short_description: Keep a service of a Compose project running
description:
  - Writes the service into the project's C(compose.yaml), has its container run so, and waits until it is ready.
  - A changed file of its configuration is judged by the program itself before it replaces the old one, and loaded
    without a restart.
  - What is needed is found by asking the engine; C(docker compose) is called only when something is.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.engine
options:
  state_directory:
    description: The state directory of the target. The project lies in C(project) below it.
    type: path
    required: true
  name:
    description: Name of the service.
    type: str
    required: true
  image:
    description: Image, by name or by digest. It is fetched if it is missing, and run by its digest.
    type: str
    required: true
  definition:
    description: The service as in a Compose file, without its image.
    type: dict
    required: true
  volumes:
    description: Volumes of the project that it uses.
    type: dict
    default: {}
  postgresql_volume:
    description: >-
      Volume with the data of PostgreSQL, where the service has them. The volume that was last restored stands for it.
      Nothing is done when the data are another major version's than the image.
    type: str
    choices: [database]
  secret_files:
    description: Files with secrets on the target, by name. They have the same paths in the container.
    type: dict
    default: {}
  files:
    description: Configuration files by name, kept in C(project/NAME) below the state directory.
    type: dict
    default: {}
  watched:
    description: Files on the target whose change has to be loaded like that of O(files); they may be secret.
    type: list
    elements: path
    default: []
  data_directories:
    description: Directories on the target that it writes to, each with the user id (and group id) that it belongs to.
    type: dict
    default: {}
  check_command:
    description: Command in the image that judges the files, which it finds in C(/candidate).
    type: list
    elements: str
    default: []
  reload_command:
    description: Command in the container that loads changed files.
    type: list
    elements: str
    default: []
  optional:
    description: >-
      Services beside it that people start when they want them (C(docker compose --profile NAME up)), by name, each with
      C(image), C(definition), C(volumes), C(secret_files) and C(files) like those of this module. An empty one is taken
      away with its containers; its volumes stay.
    type: dict
    default: {}
  answers_at:
    description: >-
      Where the service answers HTTP once it is ready (C(host:port)). A container that runs is restarted when nothing
      listens there, as when the engine's own proxy for the port has ended.
    type: str
  seconds:
    description: How long it may take to become ready, in seconds.
    type: float
    default: 60
attributes:
  check_mode:
    description: Says what is needed. Nothing is fetched, so an image that is missing is reported as a change.
    support: full
  diff_mode:
    description: Compares the part of the Compose file.
    support: full
"""

EXAMPLES = r"""
- name: Deploy the database container
  whitestar.deploy.compose_service:
    state_directory: /var/lib/titanic
    engine: {socket: /var/run/docker.sock, program: docker, project: titanic}
    name: database
    image: postgres:17
    definition: {networks: [data], restart: unless-stopped}
"""

RETURN = r"""
steps:
  description: What was needed, in order.
  returned: success
  type: list
  elements: str
optional:
  description: What became of optional services (C(offer NAME), C(withdraw NAME)).
  returned: success
  type: list
  elements: str
image:
  description: The image by digest; empty in check mode while it is missing.
  returned: success
  type: str
"""

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    exclusively,
    json_bytes,
    make_directory,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, EngineError, pinned
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project, Service
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.volumes import data_volume, with_data_volume
from ansible_collections.whitestar.deploy.plugins.module_utils.host.fingerprint import fingerprint
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State

JUDGE_SECONDS = 60


def judge(engine: DockerClient, image: str, files: dict[str, str], command: list[str]) -> None:
    """Let the program in the image judge the new files. Raises EngineError with its words."""
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        for name, text in files.items():
            write_atomically(Path(scratch) / name, text.encode(), 0o644)
        mount = f"type=bind,source={scratch},target=/candidate,readonly"
        done = engine.run_container(image, command, "--network", "none", "--mount", mount, seconds=JUDGE_SECONDS)
    if done.returncode:
        raise EngineError(
            f"'{' '.join(command)}' refuses the new files: {(done.stderr or done.stdout).strip()[-2000:]}"
        )


def check_major(engine: DockerClient, volume: str, image: str) -> None:
    """Raises EngineError when the volume's data were made by another major version of PostgreSQL than the image's.

    Where the engine's files cannot be read from here, as with one in a virtual machine, nothing is known or said.
    """
    found = engine.get(f"/volumes/{engine.project}_{volume}") or {}
    described = engine.image(image) if image else None
    try:
        kept = (Path(str(found.get("Mountpoint", "/nowhere"))) / "PG_VERSION").read_text(encoding="utf-8").strip()
    except OSError:
        return
    variables = dict(word.split("=", 1) for word in ((described or {}).get("Config") or {}).get("Env") or [])
    wanted = variables.get("PG_MAJOR", kept)
    if wanted != kept:
        raise EngineError(
            f"the data in volume {found['Name']} are PostgreSQL {kept}'s, the image is {wanted}: set "
            f"titanic_database_image to PostgreSQL {kept}, or dump the data and load them into a new volume"
        )


def ensure_optional(project: Project, wanted: dict[str, dict[str, Any]], *, check: bool) -> list[str]:
    """Have the project's file offer these services, or take away those that are empty; what that takes."""
    steps = []
    for name, options in wanted.items():
        if not options:
            if project.part(name):
                steps.append(f"withdraw {name}")
                if not check:
                    project.remove_service(name)
            continue
        definition = options["definition"] | {"profiles": [name]}
        own = [options.get(key, {}) for key in ("volumes", "secret_files", "files")]
        service = Service(project, name, options["image"], definition, *own)
        if service.stale():
            steps.append(f"offer {name}")
            if not check:
                service.write()
    return steps


def ensure_service(engine: DockerClient, options: dict[str, Any], *, check: bool) -> tuple[list[str], str, Service]:
    """Bring the service to where it should be, or say what that takes: steps, image, service. Raises EngineError."""
    image = pinned(engine, options["image"], pull=not check)
    state = State(Path(options["state_directory"]))
    definition, volumes = options["definition"], options["volumes"]
    if options["postgresql_volume"]:
        current = data_volume(state)
        check_major(engine, current, image)
        definition, volumes = with_data_volume(definition, volumes, current)
    project = Project.of(state, engine)
    service = Service(
        project,
        options["name"],
        image or options["image"],
        definition,
        volumes,
        options["secret_files"],
        options["files"],
        fingerprint(state, options["watched"], check=check) if options["watched"] else "",
    )
    steps = service.steps(options["answers_at"] or "")
    if steps and not check:
        if "write" in steps and options["check_command"]:
            judge(engine, image, options["files"], options["check_command"])
        for path, uid in options["data_directories"].items():
            make_directory(Path(path), 0o755, (int(uid), int(uid)))
        service.apply(steps, options["reload_command"], options["answers_at"], options["seconds"])
    return steps, image, service


def main() -> None:
    """Run the module."""
    words = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "state_directory": {"type": "path", "required": True},
            "engine": DockerClient.OPTION,
            "name": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "definition": {"type": "dict", "required": True},
            "volumes": {"type": "dict", "default": {}},
            "postgresql_volume": {"type": "str", "choices": ["database"]},
            "secret_files": {"type": "dict", "default": {}, "no_log": False},
            "files": {"type": "dict", "default": {}},
            "watched": {"type": "list", "elements": "path", "default": []},
            "data_directories": {"type": "dict", "default": {}},
            "check_command": words,
            "reload_command": words,
            "optional": {"type": "dict", "default": {}},
            "answers_at": {"type": "str"},
            "seconds": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    options = module.params
    state = State(Path(options["state_directory"]))
    engine = DockerClient.of(options["engine"])
    before = Project.of(state, engine).part(options["name"])
    try:
        with nullcontext() if module.check_mode else exclusively(state.root / "project"):
            steps, image, service = ensure_service(engine, options, check=module.check_mode)
            optional = ensure_optional(service.project, options["optional"], check=module.check_mode)
    except (EngineError, OSError, ValueError) as error:
        module.fail_json(msg=f"{options['name']}: {error}")
    module.exit_json(
        changed=bool(steps or optional),
        steps=steps,
        optional=optional,
        image=image,
        diff={"before": json_bytes(before).decode(), "after": json_bytes(service.part).decode()},
    )


if __name__ == "__main__":
    main()
