#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan one service of a Compose project, and wait for it once M(community.docker.docker_compose_v2) has applied it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_service
short_description: Plan a service of a Compose project, and wait for it
description:
  - Works beside M(community.docker.docker_compose_v2), which has Compose run a service and takes others away.
  - With O(state=planned) it finds what is needed by asking the engine, fetches the image, has the program itself judge
    changed files of its configuration, and writes the service into the project's C(compose.yaml). The hash of its
    definition is a label of the container, so Compose is called only when something is needed.
  - With O(state=ready) it has changed files loaded without a restart, and waits until the container is ready. One that
    does not come up is told of with its last output.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.engine
options:
  state_directory:
    description: The state directory of the target. The project lies in C(project) below it.
    type: path
    required: true
  state:
    description: Whether the service is to be planned, or what was planned has been applied.
    type: str
    choices: [planned, ready]
    default: planned
  service:
    description: The service.
    type: dict
    required: true
    suboptions:
      name: {description: Its name., type: str, required: true}
      image:
        description: Image, by name or by digest. It is fetched if it is missing, and run by its digest.
        type: str
        required: true
      definition: {description: "The service as in a Compose file, without its image.", type: dict, required: true}
      volumes: {description: Volumes of the project that it uses., type: dict, default: {}}
      postgresql_volume:
        description: >-
          Volume with the data of PostgreSQL, where the service has them. The volume that was last restored stands for
          it. Nothing is done when the data are another major version's than the image.
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
        description: Files on the target whose change has to be loaded like that of C(files); they may be secret.
        type: list
        elements: path
        default: []
      data_directories:
        description: Directories on the target that it writes to, each with the user and group id that it belongs to.
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
      closing_seconds:
        description: >-
          For how long before that a reverse proxy closes each connection with its answer, in seconds, since a reload
          closes those that lie idle.
        type: float
        default: 0
      optional:
        description: >-
          Services beside it that people start when they want them (C(docker compose --profile NAME up)), by name, each
          with C(image), C(definition), C(volumes), C(secret_files) and C(files) like those of this service. An empty
          one is taken away with its containers; its volumes stay.
        type: dict
        default: {}
      answers_at:
        description: >-
          Where the service answers HTTP once it is ready (C(host:port)). A container that runs is restarted when
          nothing listens there, as when the engine's own proxy for the port has ended.
        type: str
      seconds: {description: "How long it may take to become ready, in seconds.", type: float, default: 60}
attributes:
  check_mode:
    description: Says what is needed. Nothing is fetched, so an image that is missing is reported as a change.
    support: full
  diff_mode: {description: Compares the part of the Compose file., support: full}
"""

EXAMPLES = r"""
- name: Plan the database
  whitestar.deploy.compose_service:
    state_directory: /var/lib/titanic
    engine: {socket: /var/run/docker.sock, program: docker, project: titanic}
    service: {name: database, image: "postgres:17", definition: {networks: [data], restart: unless-stopped}}
  register: planned

- name: Apply it
  community.docker.docker_compose_v2:
    project_src: /var/lib/titanic/project
    services: "{{ item.services }}"
    state: "{{ item.state }}"
    recreate: "{{ item.recreate }}"
    profiles: "{{ item.profiles }}"
    scale: "{{ item.scale }}"
    dependencies: false
    build: never
    pull: never
  loop: "{{ planned.compose }}"
"""

RETURN = r"""
steps: {description: "What was planned, in words.", returned: success, type: list, elements: str}
compose:
  description: >-
    What to tell M(community.docker.docker_compose_v2), one after the other; nothing in check mode. Each has C(state),
    C(services), C(recreate), C(profiles) and C(scale).
  returned: when state is planned
  type: list
  elements: dict
"""

import tempfile
from collections.abc import Iterator
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
            f"the data in volume {found['Name']} are PostgreSQL {kept}'s, the image is {wanted}. Set "
            f"titanic_database_image to PostgreSQL {kept}, or dump the data and load them into a new volume."
        )


def wanted(state: State, engine: DockerClient, options: dict[str, Any], *, check: bool) -> Service:
    """The service as it is wanted, its image fetched unless ``check``. Raises EngineError."""
    image = pinned(engine, options["image"], pull=not check)
    if options["postgresql_volume"]:
        current = data_volume(state)
        check_major(engine, current, image)
        definition, volumes = with_data_volume(options["definition"], options["volumes"], current)
        options = options | {"definition": definition, "volumes": volumes}
    watched = fingerprint(state, options["watched"], check=check) if options["watched"] else ""
    return Service(Project.of(state, engine), options["name"], image or options["image"], options, watched)


def offered(project: Project, optional: dict[str, dict[str, Any]]) -> list[Service]:
    """The optional services that the project's file is to offer, and does not as they are wanted."""
    found = [
        Service(project, name, options["image"], options | {"definition": options["definition"] | {"profiles": [name]}})
        for name, options in optional.items()
        if options
    ]
    return [service for service in found if service.stale()]


def withdrawn(project: Project, optional: dict[str, dict[str, Any]]) -> list[str]:
    """The optional services that the project's file still offers, and is not to."""
    return [name for name, options in optional.items() if not options and project.part(name)]


def calls(service: Service, needed: list[str], withdraws: list[str]) -> Iterator[dict[str, Any]]:
    """What community.docker.docker_compose_v2 is to be told."""
    if {"start", "restart"} & {*needed}:
        state, recreate = "present" if "start" in needed else "restarted", "always" if service.altered() else "auto"
        yield {"state": state, "services": [service.name], "recreate": recreate, "profiles": [], "scale": {}}
    for name in withdraws:
        # Absent would take the networks too that only stopped containers are in, which do not start again without.
        if service.project.engine.containers(name):
            none = {"recreate": "auto", "scale": {name: 0}}
            yield {"state": "present", "services": [name], "profiles": [name]} | none


def plan(service: Service, options: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """What is needed, written into the project's file unless ``check``. Raises EngineError."""
    before = service.project.part(service.name)
    needed = service.needed(options["answers_at"] or "")
    offers = offered(service.project, options["optional"])
    withdraws = withdrawn(service.project, options["optional"])
    if not check:
        if "write" in needed and options["check_command"]:
            judge(service.project.engine, service.image, options["files"], options["check_command"])
        for path, uid in options["data_directories"].items() if needed else ():
            make_directory(Path(path), 0o755, (int(uid), int(uid)))
        for each in [*([service] if "write" in needed else []), *offers]:
            each.write()
        if "start" in needed:
            service.record_applied()
    steps = [f"{verb} the service {service.name}" for verb in needed]
    steps += [f"offer the service {each.name}" for each in offers]
    steps += [f"withdraw the service {name}" for name in withdraws]
    return {
        "changed": bool(steps),
        "steps": steps,
        "compose": [] if check else list(calls(service, needed, withdraws)),
        "diff": {"before": json_bytes(before).decode(), "after": json_bytes(service.part).decode()},
    }


def finish(service: Service, options: dict[str, Any]) -> dict[str, Any]:
    """What is left to be done once Compose has applied what was planned. Raises EngineError."""
    service.settle(
        options["reload_command"], options["answers_at"] or "", options["seconds"], options["closing_seconds"]
    )
    for name in withdrawn(service.project, options["optional"]):
        service.project.remove_service(name)
    return {"changed": False, "steps": []}


def main() -> None:
    """Run the module."""
    words = {"type": "list", "elements": "str", "default": []}
    text = {"type": "str", "required": True}
    things = {"type": "dict", "default": {}}
    module = AnsibleModule(
        argument_spec={
            "state_directory": {"type": "path", "required": True},
            "engine": DockerClient.OPTION,
            "state": {"type": "str", "choices": ["planned", "ready"], "default": "planned"},
            "service": {
                "type": "dict",
                "required": True,
                "options": {
                    "name": text,
                    "image": text,
                    "definition": {"type": "dict", "required": True},
                    "volumes": things,
                    "postgresql_volume": {"type": "str", "choices": ["database"]},
                    "secret_files": things | {"no_log": False},
                    "files": things,
                    "watched": {"type": "list", "elements": "path", "default": []},
                    "data_directories": things,
                    "check_command": words,
                    "reload_command": words,
                    "closing_seconds": {"type": "float", "default": 0},
                    "optional": things,
                    "answers_at": {"type": "str"},
                    "seconds": {"type": "float", "default": 60},
                },
            },
        },
        supports_check_mode=True,
    )
    options, check = module.params["service"], module.check_mode
    state = State(Path(module.params["state_directory"]))
    engine = DockerClient.of(module.params["engine"])
    try:
        with nullcontext() if check else exclusively(state.root / "project"):
            service = wanted(state, engine, options, check=check)
            ready = module.params["state"] == "ready" and not check
            answer = finish(service, options) if ready else plan(service, options, check=check)
    except (EngineError, OSError, ValueError) as error:
        module.fail_json(msg=f"{options['name']}: {error}")
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
