#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command of a release as a Job that answers in JSON, and report what it says it changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_command
short_description: Run a command of a release as a Job and read its answer
description:
  - Runs a Job whose container prints a JSON object with a key C(changed), such as a migration, and waits until it is
    complete or has failed. Of the Jobs of a command the last one stays, with its answer.
  - A Job that would do what the last one did is not run again, unless O(always). What it would do is told by O(key) and
    O(of).
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.cluster
options:
  name: {description: Name of the command., type: str, required: true}
  job: {description: The Job; its name is made., type: dict, required: true}
  key: {description: "What the command brings about, so that it need not be done twice.", type: str, required: true}
  of:
    description: Objects that it is done to. When one is made anew, it has to be done again.
    type: list
    elements: dict
    default: []
    suboptions:
      api_version: {description: Group and version of its kind., type: str, required: true}
      kind: {description: Its kind., type: str, required: true}
      name: {description: Its name., type: str, required: true}
  while_ready:
    description: >-
      Labels of the pods that serve. When there are such pods and none is ready, it is done again, since their readiness
      tells of the database.
    type: dict
    default: {}
  always: {description: Whether to run it in any case., type: bool, default: false}
  source:
    description: File on the controller that the container reads as its standard input. Its content is part of O(key).
    type: path
  failure:
    description: >-
      Records a failure as that of a release, in the ledger and in a failure report, which the message tells of.
    type: dict
    suboptions:
      cluster: {description: As O(cluster)., type: dict}
      state_directory: {description: Not used here., type: path}
      by: {description: "Who runs this, for the ledger.", type: str, required: true}
      image: {description: The image as M(whitestar.deploy.compose_image) gave it back., type: dict}
  seconds: {description: "How long the Job may take, in seconds.", type: float, default: 600}
attributes:
  check_mode: {description: Says whether it would be run; the cluster is only looked at., support: full}
  diff_mode: {description: Shows the answer., support: full}
"""

EXAMPLES = r"""
- name: Migrate the schema
  whitestar.deploy.kubernetes_command:
    cluster: {namespace: titanic}
    name: migrate
    job: "{{ lookup('ansible.builtin.template', 'kubernetes.yml.j2') | from_yaml }}"
    key: "0003"
"""

RETURN = r"""
answer:
  description: >-
    The JSON object that the command printed, now or when it was last run. Empty in check mode where it would run.
  returned: success
  type: dict
repeated: {description: Whether the answer is that of an earlier run., returned: success, type: bool}
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import json_bytes
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import resolved, secret_names
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.jobs import Command
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.pods import ready
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords, records_of
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import record_failure, redacted

DATABASE_LINES = "50"


def whole_key(cluster: KubernetesClient, options: dict[str, Any]) -> str:
    """The key, with what the command is done to and what it reads."""
    parts = [options["key"]]
    for thing in options["of"]:
        found = cluster.get(thing["api_version"], thing["kind"], thing["name"])
        parts.append(str(found["metadata"]["uid"]) if found else "none")
    if options["source"]:
        with Path(options["source"]).open("rb") as stream:
            parts.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return " ".join(parts)


def earlier(cluster: KubernetesClient, command: Command, options: dict[str, Any], key: str) -> dict[str, Any] | None:
    """What the command has answered before, if it need not be done again."""
    if options["always"]:
        return None
    pods = cluster.list("v1", "Pod", **options["while_ready"]) if options["while_ready"] else []
    if pods and not any(ready(pod) for pod in pods):
        return None
    return command.answered(key)


def evidence(cluster: KubernetesClient, said: str) -> dict[str, str]:
    """What tells why the command failed: what it printed, and what the database printed last."""
    try:
        where = cluster.address("v1", "Pod", "titanic-database-0", "log")
        database = cluster.text(where, container="postgresql", tailLines=DATABASE_LINES)
    except ClusterError as error:
        database = f"({error})"
    return {"last output": said, "last output of the database": database}


def run_command(cluster: KubernetesClient, command: Command, options: dict[str, Any], key: str) -> dict[str, Any]:
    """Run it: its answer. Raises ReleaseError, with the failure recorded, if it does not come to a good end."""
    source = Path(options["source"]) if options["source"] else None
    job = resolved(options["job"], secret_names(cluster))
    said = ""
    try:
        command.wait_for_others(options["seconds"])
        done, answer, said = command.run(job, key, source, options["seconds"])
        if done and isinstance(answer, dict):
            return answer
        # It knows what it reads as its standard input.
        why = f"failed: {named_source(said.strip(), source) or answer}"
    except ReleaseError as error:
        why = f"could not be run: {error}"
    raise ReleaseError(recorded(cluster, options, f"{options['name']} {why}", said or why))


def recorded(cluster: KubernetesClient, options: dict[str, Any], message: str, said: str) -> str:
    """The message to fail with, without secrets, once the failure has been recorded, if it is to be."""
    if not (failure := options["failure"]):
        return redacted(ClusterRecords(cluster), message)
    image = failure.get("image") or {"identity": options["key"], "description": {}}
    return record_failure(records_of, failure, image, message, evidence(cluster, said), {"job": options["job"]})


def named_source(said: str, source: Path | None) -> str:
    """What a command said of ``-``, said of the file that it read."""
    return re.sub(r"(^|\s)-: ", rf"\g<1>{source}: ", said, count=1) if source else said


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "cluster": KubernetesClient.OPTION | {"required": True},
            "name": text,
            "job": {"type": "dict", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
            "of": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"api_version": text, "kind": text, "name": text},
            },
            "while_ready": {"type": "dict", "default": {}},
            "always": {"type": "bool", "default": False},
            "source": {"type": "path"},
            "failure": {
                "type": "dict",
                "options": {
                    "cluster": {"type": "dict"},
                    "state_directory": {"type": "path"},
                    "by": text,
                    "image": {"type": "dict"},
                },
            },
            "seconds": {"type": "float", "default": 600},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        with KubernetesClient.of(options["cluster"]) as cluster:
            command = Command(cluster, options["name"])
            key = whole_key(cluster, options)
            found = earlier(cluster, command, options, key)
            if found is not None:
                module.exit_json(changed=False, answer=found | {"changed": False}, repeated=True)
            if module.check_mode:
                module.exit_json(changed=True, answer={}, repeated=False, msg="would run: it has not been done yet")
            answer = run_command(cluster, command, options, key)
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    except (ClusterError, OSError, ValueError) as error:
        module.fail_json(msg=f"{options['name']}: {error}")
    module.exit_json(
        changed=bool(answer.get("changed")),
        answer=answer,
        repeated=False,
        diff={"before": "", "after": json_bytes(answer).decode() if answer.get("changed") else ""},
    )


if __name__ == "__main__":
    main()
