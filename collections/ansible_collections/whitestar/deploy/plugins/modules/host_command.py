#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command of a release that answers in JSON, and report what it says it changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_command
short_description: Run a command of a release and read its answer
description:
  - Runs a command that prints a JSON object with a key C(changed), such as a migration.
  - In check mode O(check_argument) is added, so that the release itself says what it would do.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.engine
options:
  image: {description: "The release directory, or the image's reference by digest.", type: str, required: true}
  command: {description: "Program of the release, and arguments.", type: list, elements: str, required: true}
  check_argument: {description: Argument that makes the command change nothing., type: str, required: true}
  environment:
    description: Environment of the command. Secrets belong in files that it names.
    type: dict
    required: true
  secret_files:
    description: >-
      Files on the target that the command reads, by name. A container has them at the same paths. A process reads
      them where they are; where the run is root's it is user 10003 and gets copies in memory instead.
    type: dict
    default: {}
  required_files:
    description: >-
      Paths without which the command cannot work. In check mode on a fresh target they are not there yet, and the
      command is reported as one that would run.
    type: list
    elements: path
    default: []
  failure:
    description: >-
      Records a failure as that of a release, in the ledger and in a failure report, whose path the message has. What
      the release answers to O(check_argument) then, and what the database printed last, is part of the evidence.
    type: dict
    suboptions:
      state_directory: {description: The state directory of the target., type: path, required: true}
      by: {description: "Who runs this, for the ledger.", type: str, required: true}
  answer_file:
    description: File in which the answer is kept, for M(whitestar.deploy.host_drift_info). Not in check mode.
    type: path
  marks:
    description: >-
      Makes a restore point before the command, where backups are on and the release answers to O(check_argument) that
      it would change something. Needs O(failure), whose ledger has the point then.
    type: bool
    default: false
  seconds: {description: "How long the command may take, in seconds.", type: float, default: 600}
attributes:
  check_mode: {description: The release says what it would do., support: full}
  diff_mode: {description: Shows the answer., support: full}
"""

EXAMPLES = r"""
- name: Migrate the schema
  whitestar.deploy.host_command:
    image: /var/lib/titanic/images/3f2a9c0d1b7e
    command: [titanic-api, migrate]
    check_argument: --check
    environment: {TITANIC_DATABASE_HOST: /var/lib/titanic/database/run}
"""

RETURN = r"""
answer: {description: The JSON object that the command printed., returned: success, type: dict}
"""

import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    json_bytes,
    make_directory,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import ComposeRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.runtime import Runtime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import FAILURE_OPTION, State, records_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import LocalRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import record_failure

CHECK_SECONDS = 30
UNFINISHED = 256  # no program's


def run(host: Runtime, options: dict[str, Any], words: list[str], seconds: float) -> tuple[int, Any, str]:
    """Run the command: (exit code, JSON answer or None, standard error or why it did not come to its end)."""
    try:
        return host.execute(options["image"], words, options["environment"], options["secret_files"], seconds)
    except subprocess.TimeoutExpired:
        return UNFINISHED, None, f"took longer than {seconds:g} s and was ended"
    except (EngineError, ReleaseError, OSError) as error:
        return UNFINISHED, None, f"could not be started: {error}"


def evidence(host: Runtime, options: dict[str, Any], said: str) -> dict[str, str]:
    """What tells why the command failed: its output, what the release says of what is to be done, the database."""
    _, answer, complaint = run(host, options, [*options["command"], options["check_argument"]], CHECK_SECONDS)
    return {
        "last output": said,
        "what the release finds there": json_bytes(answer).decode() if isinstance(answer, dict) else complaint,
        "last output of the database": host.database_output(),
    }


def recorded(host: Runtime, options: dict[str, Any], message: str, said: str) -> str:
    """The message to fail with, once the failure has been recorded, if it is to be."""
    if not options["failure"]:
        return message
    image = State(Path(options["failure"]["state_directory"])).image(options["image"])
    settings = {key: options[key] for key in ("image", "command", "environment")}
    return record_failure(records_of, options["failure"], image, message, evidence(host, options, said), settings)


def record_answer(path: Path, answer: dict[str, Any]) -> None:
    """Keep it for those who want to know later what was brought about. Raises OSError."""
    content = json_bytes(answer)
    if not has_content(path, content, 0o644):
        make_directory(path.parent, 0o755)
        write_atomically(path, content, 0o644)


def mark(host: Runtime, state: State, options: dict[str, Any]) -> None:
    """Make a restore point if the command would change something. Raises ReleaseError, OSError, ValueError."""
    _, answer, _ = run(host, options, [*options["command"], options["check_argument"]], CHECK_SECONDS)
    if isinstance(answer, dict) and answer.get("changed") and (point := host.restore_point()):
        state.write_ledger(state.ledger().with_event("point", **point))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "engine": DockerClient.OPTION,
            "image": {"type": "str", "required": True},
            "command": {"type": "list", "elements": "str", "required": True},
            "check_argument": {"type": "str", "required": True},
            "environment": {"type": "dict", "required": True},
            "secret_files": {"type": "dict", "default": {}, "no_log": False},
            "required_files": {"type": "list", "elements": "path", "default": []},
            "failure": FAILURE_OPTION,
            "answer_file": {"type": "path"},
            "marks": {"type": "bool", "default": False},
            "seconds": {"type": "float", "default": 600},
        },
        supports_check_mode=True,
    )
    options = module.params
    words = list(options["command"])
    # Of the state only a failure's evidence is read.
    state, engine = State(Path((options["failure"] or {}).get("state_directory", "/"))), options["engine"]
    host: Runtime = ComposeRuntime(DockerClient.of(engine), state) if engine else LocalRuntime(state)
    try:
        program = host.missing(options["image"], words)
    except EngineError as error:
        module.fail_json(msg=f"{' '.join(words)} could not be started: {error}")
    missing = [
        *([program] if program else []),
        *(path for path in options["required_files"] if not Path(path).exists()),
    ]
    if missing and module.check_mode:
        module.exit_json(changed=True, answer={}, msg=f"would run: {missing[0]} is not there yet")
    if missing:
        module.fail_json(msg=f"{' '.join(words)} cannot run: {missing[0]} is missing. Run the whole site once.")
    if module.check_mode:
        words.append(options["check_argument"])
    elif options["marks"] and state.backup_settings():
        try:
            mark(host, state, options)
        except (ReleaseError, OSError, ValueError) as error:
            module.fail_json(msg=f"{' '.join(words)} was not run: {error}")
    code, answer, complaint = run(host, options, words, options["seconds"])
    if code or not isinstance(answer, dict):
        how = complaint if code == UNFINISHED else f"failed ({code}): {complaint or answer}"
        message = f"{' '.join(words)} {how}"
        said = f"{complaint}\n{answer or ''}"
        module.fail_json(msg=message if module.check_mode else recorded(host, options, message, said))
    if options["answer_file"] and not module.check_mode:
        record_answer(Path(options["answer_file"]), answer)
    module.exit_json(
        changed=bool(answer.get("changed")),
        answer=answer,
        diff={"before": "", "after": json_bytes(answer).decode() if answer.get("changed") else ""},
    )


if __name__ == "__main__":
    main()
