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
  - The target builds it with BuildKit, and records reference and description. With O(push) the image is pushed to its
    registry and referred to by its digest, otherwise by its id. A registry that has an image of that name already is
    believed. It is pulled, judged and recorded then, and nothing is built.
  - Beside the record lie C(provenance.json), an in-toto statement of what the image was built from (SLSA provenance
    1.0) where it was built, and C(sbom.cdx.json), if the Dockerfile has a stage C(sbom) that holds a file of this name.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.engine
options:
  directory:
    description: Directory on the target where releases are recorded, one below it for each.
    type: path
    required: true
  context: {description: Directory on the controller that is the build context., type: path, required: true}
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
  push: {description: Whether to push it to the registry that O(repository) names., type: bool, default: false}
  login:
    description: Who pushes; the client's own credentials are used without it.
    type: dict
    suboptions:
      username: {description: The account., type: str, required: true}
      password: {description: Its password or token., type: str, required: true}
  platforms:
    description: >-
      Platforms that the image is made for, such as C(linux/amd64); that of the engine must be among them. More than one
      needs O(push).
    type: list
    elements: str
    default: []
  scan_command:
    description: >-
      Command on the target that judges an image before it is recorded or pushed, C({image}) and C({sbom}) replaced. If
      its status is not 0 the image is refused. It is run once for each image and command.
    type: list
    elements: str
    default: []
  build_arguments:
    description: >-
      Arguments of the build. No secrets. One that the Dockerfile has no C(ARG) for is refused before anything is sent.
    type: dict
    default: {}
  describe:
    description: Command in the image that prints what it is, as a JSON object.
    type: list
    elements: str
    default: []
  signed:
    description: The image by the digest that was signed; it is pulled, and nothing is built. Any image if empty.
    type: str
    default: ""
  planned:
    description: The identity that a plan names. Another one is refused before anything is built. Any if empty.
    type: str
    default: ""
  failure:
    description: >-
      Records a failure as that of a release, in the ledger and in a failure report, whose path the message has.
    type: dict
    suboptions:
      state_directory: {description: "The state directory of the target, where that is a host.", type: path}
      cluster:
        description: The cluster and the namespace, where the target is one.
        type: dict
        suboptions:
          kubectl: {description: The program that knows its credentials., type: str, default: kubectl}
          kubeconfig: {description: File with its address and credentials., type: path}
          context: {description: The context of that file., type: str}
          namespace: {description: The namespace., type: str, required: true}
      by: {description: "Who runs this, for the ledger.", type: str, required: true}
  identity: {description: Set by the action plugin., type: str}
  archive: {description: Set by the action plugin., type: path}
  seconds: {description: "How long the build may take, in seconds.", type: float, default: 1800}
attributes:
  check_mode: {description: "Says whether the image would be built or judged, and does neither.", support: full}
  diff_mode: {description: Names the image., support: full}
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
    directory: {description: "Directory on the target with C(provenance.json) and C(sbom.cdx.json).", type: str}
needs_context:
  description: Whether the module must be called again with the context, as the action plugin does.
  returned: success
  type: bool
"""

import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    exclusively,
    read_json,
    write_atomically,
    write_json,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker import image_build
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.host import state
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes import records
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import record_failure
from ansible_collections.whitestar.deploy.plugins.module_utils.release.plan import PLANNED_OPTION

MARKER = "image.json"
# Of a release that is to serve on a host or on a cluster.
FAILURE_OPTION = {
    "type": "dict",
    "options": state.FAILURE_OPTION["options"]
    | {"state_directory": {"type": "path"}, "cluster": KubernetesClient.OPTION},
    "required_one_of": [("state_directory", "cluster")],
}


def recorded(engine: DockerClient, directory: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What was recorded of an image that the engine still has under this name, pushed if asked for; empty otherwise.

    One that was not signed is as if there were none.
    """
    found = read_json(directory / MARKER, {})
    wanted = (options["repository"], options["push"])
    if not isinstance(found, dict) or (found.get("repository"), found.get("pushed")) != wanted:
        return {}
    if options["signed"] and found["reference"] != options["signed"]:
        return {}
    return found if engine.image(found["reference"]) else {}


def others(engine: DockerClient, directory: Path, name: str) -> str:
    """The id of the image that has this name and that no record beside ``directory`` knows; empty if there is none."""
    found = str((engine.image(name) or {}).get("Id", ""))
    references = [read_json(marker, {}).get("reference", "") for marker in directory.parent.glob(f"*/{MARKER}")]
    ours = {(engine.image(reference) or {}).get("Id") for reference in references if reference}
    return "" if found in ours else found


def give_back(engine: DockerClient, name: str, image: str) -> None:
    """Let somebody's image have its name again that a build has taken. Raises InputError, since it is theirs."""
    taken = engine.image(name) or {}
    engine.run("tag", image, name)
    if taken.get("RepoTags") == [name]:
        engine.run("image", "rm", taken["Id"])
    what = f"the engine has another image {name}, which is not of this deployment"
    raise image_build.InputError(f"titanic_image_repository: {what}. Choose another name, or remove it.")


def build(engine: DockerClient, options: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Build the image from the archive, have it judged, push it: what to record. Raises EngineError, RefusedError."""
    name = f"{options['repository']}:{options['identity']}"
    login = options["login"] if options["push"] else None
    there, theirs = engine.image(name), others(engine, directory, name)
    with (
        tempfile.TemporaryDirectory() as scratch,
        image_build.logged_in(engine, options["repository"], login) as pusher,
    ):
        source = image_build.Source(Path(scratch), options["build_arguments"], options["platforms"])
        source.unpack(options["archive"])
        began, said = image_build.utc_now(), ""
        published = pulled(pusher, name, options) if options["push"] else ""
        if not published:
            said = source.build(engine, "--load", "--tag", name, seconds=options["seconds"])
        tags = [name]
        try:
            reference = str((engine.image(name) or {}).get("Id", ""))
            if theirs and reference != theirs:
                give_back(engine, name, theirs)
            description = image_build.described(engine, reference, options["describe"]) if options["describe"] else {}
            source.write_sbom(engine, directory, seconds=options["seconds"])
            if options["scan_command"]:
                image_build.pass_gate(
                    options["scan_command"], engine, reference, directory / image_build.SBOM, options["seconds"]
                )
            if version := description.get("version"):
                other = f"{options['repository']}:{version}"
                # For people alone: who has the name keeps it, unless it is that of a registry that we are to write to.
                if options["push"] or others(engine, directory, other) in ("", reference):
                    tags.append(other)
                    engine.run("tag", name, other)
            if options["push"]:
                reference = published or push(pusher, source, options, tags)
        except (EngineError, image_build.RefusedError):
            # Nothing is recorded, so nobody would ever remove it; one that was there may be a release's.
            if not there:
                engine.run("image", "rm", *tags)
            raise
        # Who built it states what it was built from.
        if not published:
            subject = {"name": options["repository"], "sha256": reference.rpartition(":")[2]}
            statement = image_build.provenance(engine, source, subject, directory / image_build.SBOM, said, began)
            write_atomically(directory / image_build.PROVENANCE, statement, 0o644)
    return {
        "identity": options["identity"],
        "reference": reference,
        "repository": options["repository"],
        "pushed": options["push"],
        "passed": options["scan_command"],
        "tags": tags,
        "description": description,
    }


def pulled(pusher: DockerClient, name: str, options: dict[str, Any]) -> str:
    """The release as another controller has pushed it, by digest, now in the engine; empty if the registry has none.

    Where one was signed, it is that one, whatever its tag names by now. Raises EngineError when it cannot be had.
    """
    if options["signed"]:
        pusher.run("pull", "--quiet", options["signed"], seconds=options["seconds"])
        pusher.run("tag", options["signed"], name)
        return str(options["signed"])
    try:
        pusher.run("pull", "--quiet", name, seconds=options["seconds"])
    except EngineError:
        return ""  # nobody has, or it cannot be asked, which the push says
    return image_build.digest(pusher, name, options["repository"])


def push(pusher: DockerClient, source: image_build.Source, options: dict[str, Any], tags: list[str]) -> str:
    """Push the image for all its platforms: its reference by digest. Raises EngineError."""
    if len(source.platforms) > 1:
        written = source.directory / "pushed.json"
        words = ["--platform", ",".join(source.platforms), "--push", "--metadata-file", str(written)]
        names = [word for tag in tags for word in ("--tag", tag)]
        source.build(pusher, *words, *names, seconds=options["seconds"])
        reference = f"{options['repository']}@{read_json(written, {}).get('containerimage.digest', 'unknown')}"
        pusher.run("pull", "--quiet", reference, seconds=options["seconds"])
        return reference
    for tag in tags:
        pusher.run("push", "--quiet", tag, seconds=options["seconds"])
    if not (found := image_build.digest(pusher, tags[0], options["repository"])):
        raise EngineError(f"the registry of {options['repository']} has given no digest")
    return found


def judged(engine: DockerClient, options: dict[str, Any], directory: Path, image: dict[str, Any]) -> dict[str, Any]:
    """The record of an image that is there, once it has passed the gate that is asked for. Raises RefusedError."""
    if options["scan_command"]:
        image_build.pass_gate(
            options["scan_command"], engine, image["reference"], directory / image_build.SBOM, options["seconds"]
        )
    return image | {"passed": options["scan_command"]}


def complete(engine: DockerClient, options: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Build or judge the image, whichever is missing, and record it. Raises EngineError, RefusedError, OSError."""
    with exclusively(directory.parent):
        found = recorded(engine, directory, options)
        directory.mkdir(exist_ok=True)
        image = judged(engine, options, directory, found) if found else build(engine, options, directory)
        write_json(directory / MARKER, image)
    return image


def recorded_failure(options: dict[str, Any], message: str, error: Exception) -> str:
    """The message to fail with, once the failure has been recorded, if it is to be."""
    evidence = {"last output": error.output} if isinstance(error, EngineError) else {}
    kept = ("repository", "push", "platforms", "scan_command", "build_arguments", "describe")
    settings = {key: options[key] for key in kept}
    failure, image = options["failure"], {"identity": options["identity"]}
    where = records.records_of if failure and failure["cluster"] else state.records_of
    return record_failure(where, failure, image, message, evidence, settings)


def main() -> None:
    """Run the module."""
    path = {"type": "path", "required": True}
    words = {"type": "list", "elements": "str", "default": []}
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "engine": DockerClient.OPTION,
            "directory": path,
            "context": path,
            "dockerfile": path,
            "exclude": words,
            "repository": text,
            "push": {"type": "bool", "default": False},
            "login": {"type": "dict", "options": {"username": text, "password": text | {"no_log": True}}},
            "platforms": words,
            "scan_command": words,
            "build_arguments": {"type": "dict", "default": {}},
            "describe": words,
            "signed": {"type": "str", "default": ""},
            "planned": PLANNED_OPTION,
            "failure": FAILURE_OPTION,
            "identity": {"type": "str"},
            "archive": {"type": "path"},
            "seconds": {"type": "float", "default": 1800},
        },
        supports_check_mode=True,
    )
    options = module.params
    engine = DockerClient.of(options["engine"])
    directory = Path(options["directory"]) / options["identity"]
    needs_context = False
    try:
        image = recorded(engine, directory, options)
        changed = not image or image.get("passed", []) != options["scan_command"]
        if not image:
            image_build.require_platforms(engine, options["platforms"])
        if changed and not module.check_mode:
            needs_context = not image and not options["archive"]
            if not needs_context:
                image = complete(engine, options, directory)
    except (EngineError, image_build.RefusedError, OSError, ValueError, tarfile.TarError) as error:
        if not (directory / MARKER).exists():
            shutil.rmtree(directory, ignore_errors=True)
        what = "is refused" if isinstance(error, image_build.RefusedError) else "could not be built"
        message = f"the release {what}, nothing else was touched: {error}"
        only_told = module.check_mode or isinstance(error, image_build.InputError)
        module.fail_json(msg=message if only_told else recorded_failure(options, message, error))
    name = f"{options['repository']}:{options['identity']}\n"
    module.exit_json(
        changed=changed,
        needs_context=needs_context,
        image={
            "reference": image.get("reference", ""),
            "identity": options["identity"],
            "description": image.get("description", {}),
            "directory": str(directory),
        },
        diff={"before": "" if changed else name, "after": name},
    )


if __name__ == "__main__":
    main()
