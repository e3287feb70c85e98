#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make an immutable release directory from a Python project, named by the hash of its tree."""

from __future__ import annotations

DOCUMENTATION = r"""
module: local_venv_release
short_description: Make an immutable directory with a Python environment of its own
description:
  - Installs a hash-locked requirements file, and a project if one is named, into a new virtual environment.
  - The directory is named by the hash of everything that went in, so the same input is never built twice, and a
    build that was interrupted is never taken for a whole one.
version_added: 1.0.0
author: The Titanic team (@whitestar)
options:
  directory: {description: "Where the directories are kept, one for each hash.", type: path, required: true}
  requirements: {description: A requirements file in which every line has hashes., type: path, required: true}
  project:
    description: A Python project to install besides. It must have a C(pyproject.toml) whose build backend is uv's.
    type: path
  exclude:
    description: Shell patterns of names or relative paths in O(project) that are no part of a release.
    type: list
    elements: str
    default: []
  python: {description: Interpreter to make the environment with. The one that runs this module unless set., type: path}
  describe:
    description: Command in the environment whose output, a JSON object, describes what was built.
    type: list
    elements: str
    default: []
  links:
    description: >-
      Symbolic links to keep in O(directory), by name; each value is a path, or a pattern that fits one, in what was
      built. They give programs that are replaced one day a place that stays.
    type: dict
    default: {}
  planned:
    description: The identity that a plan names. Another one is refused before anything is built. Any if empty.
    type: str
    default: ""
  failure:
    description: >-
      Records a failure as that of a release, in the ledger and in a failure report, whose path the message has.
    type: dict
    suboptions:
      state_directory: {description: The state directory of the target., type: path, required: true}
      by: {description: "Who runs this, for the ledger.", type: str, required: true}
attributes:
  check_mode: {description: "Says what would be built, and builds nothing.", support: full}
  diff_mode: {description: Shows the directory that is made., support: full}
"""

EXAMPLES = r"""
- name: Build the release directory
  whitestar.deploy.local_venv_release:
    directory: /var/lib/titanic/images
    project: "{{ playbook_dir }}/service"
    requirements: "{{ playbook_dir }}/service/requirements.txt"
    exclude: [tests, __pycache__]
    describe: [titanic-api, version]
"""

RETURN = r"""
image:
  description: What was built.
  returned: success
  type: dict
  contains:
    reference: {description: The directory., type: str}
    identity: {description: "Its name, 12 hexadecimal digits.", type: str}
    description: {description: What O(describe) printed; empty while it is not built., type: dict}
"""

import json
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import exclusively
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import FAILURE_OPTION, records_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.venv import BuildError, Environment, marker
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import record_failure
from ansible_collections.whitestar.deploy.plugins.module_utils.release.plan import PLANNED_OPTION, why_not


def environment(options: dict[str, object]) -> Environment:
    """The inputs as one value. Raises BuildError for a path that is not there."""
    project = Path(str(options["project"])) if options["project"] else None
    requirements = Path(str(options["requirements"]))
    if project and not (project / "pyproject.toml").is_file():
        raise BuildError(f"{project} has no pyproject.toml. Name the directory of a Python project.")
    if not requirements.is_file():
        raise BuildError(f"{requirements} is missing. Lock the requirements with hashes there.")
    exclude = options["exclude"]
    return Environment(
        parent=Path(str(options["directory"])),
        requirements=requirements,
        python=str(options["python"] or sys.executable),
        project=project,
        exclude=tuple(map(str, exclude)) if isinstance(exclude, list) else (),
    )


def stale_links(directory: Path, links: dict[str, str]) -> dict[Path, Path]:
    """Where each link that is wrong must point to in ``directory``. Raises BuildError if a target is missing."""
    stale = {}
    for name, pattern in links.items():
        targets = sorted(directory.glob(pattern))
        if not targets:
            raise BuildError(f"{directory} holds no {pattern}. Add the package that has it to the requirements.")
        link = directory.parent / name
        if not link.is_symlink() or link.readlink() != targets[0]:
            stale[link] = targets[0]
    return stale


def symlink(link: Path, target: Path) -> None:
    """Make ``link`` point to ``target`` without a moment in between."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "requirements": {"type": "path", "required": True},
            "project": {"type": "path"},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "python": {"type": "path"},
            "describe": {"type": "list", "elements": "str", "default": []},
            "links": {"type": "dict", "default": {}},
            "planned": PLANNED_OPTION,
            "failure": FAILURE_OPTION,
        },
        supports_check_mode=True,
    )
    identity = ""
    try:
        wanted = environment(module.params)
        directory = wanted.directory()
        if unplanned := why_not(directory.name, module.params["planned"]):
            module.fail_json(msg=unplanned)
        identity = directory.name
        built = marker(directory)
        changed = built is None
        if not module.check_mode:
            with exclusively(directory.parent):
                built = marker(directory) or wanted.build(module.params["describe"])
                for link, target in stale_links(directory, module.params["links"]).items():
                    symlink(link, target)
                    changed = True
        elif built:
            changed = bool(stale_links(directory, module.params["links"]))
    except (BuildError, OSError, ValueError) as error:
        message = f"the release could not be built, nothing else was touched: {error}"
        # Without a name nothing has been tried, so no release has failed.
        if identity and not module.check_mode:
            settings = {key: module.params[key] for key in ("project", "requirements", "python", "describe")}
            image = {"identity": identity}
            message = record_failure(records_of, module.params["failure"], image, message, {}, settings)
        module.fail_json(msg=message)
    description = json.loads(built["description"]) if built and "description" in built else {}
    module.exit_json(
        changed=changed,
        image={"reference": str(directory), "identity": directory.name, "description": description},
        diff={"before": "" if changed else f"{directory}\n", "after": f"{directory}\n"},
    )


if __name__ == "__main__":
    main()
