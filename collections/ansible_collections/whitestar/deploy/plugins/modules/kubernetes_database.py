#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a database with its two roles and their grants in a PostgreSQL that runs in a pod."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_database
short_description: Keep a database and its two roles in a pod
description:
  - Makes the database, the role that owns it and the role that serves, sets passwords that differ, and lets only these
    two connect. Speaks to the server as its administrator through the pod's own C(psql).
  - Passwords are those that M(whitestar.deploy.kubernetes_secrets) keeps. Only their SCRAM verifiers reach the server,
    by standard input.
  - The role that serves is given what the last migration granted where it lacks that, and what it or everybody was
    given besides is taken back.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.cluster
options:
  labels:
    description: Labels of the pod that is written to. One of several that is ready is taken.
    type: dict
    default: {app.kubernetes.io/name: titanic, app.kubernetes.io/component: database}
  container: {description: The container in it., type: str, default: postgresql}
  database: {description: Name of the database., type: str, required: true}
  owner: {description: Role that owns it and migrates., type: str, required: true}
  user: {description: Role that serves., type: str, required: true}
  finish:
    description: >-
      Whether every release has the login of the last rotation, so that the login of the one before is taken away and
      its sessions end.
    type: bool
    default: false
attributes:
  check_mode: {description: Says which steps are needed; all of them while there is no server., support: full}
  diff_mode: {description: Lists the steps., support: full}
"""

EXAMPLES = r"""
- name: Configure the database and its roles
  whitestar.deploy.kubernetes_database:
    cluster: {namespace: titanic}
    database: titanic
    owner: titanic_owner
    user: titanic_app
"""

RETURN = r"""
steps: {description: "What was done, in words.", returned: success, type: list, elements: str}
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.jobs import Command
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import labels
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.pods import leaving, ready, wait_until_gone
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.psql import PodServer
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.records import ClusterRecords
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.secrets import rotation_of, write_rotation
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import ADMINISTRATOR, Server
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.roles import (
    TEXT,
    ensure_roles,
    result,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import PASSWORD, SUPERUSER

# Beyond the time that a pod has to end in.
MARGIN_SECONDS = 30


def keep(cluster: KubernetesClient, server: Server, options: Mapping[str, Any], *, check: bool) -> list[str]:
    """Have the database and its roles as rotations have come to: what was done, in words.

    Raises KeyError for a secret that is not there, ClusterError, ValueError.
    """
    kept = dict(ClusterRecords(cluster).secrets())
    rotation = rotation_of(kept)
    if options["finish"]:
        if "database" in rotation.unfinished and not check:
            wait_for_last_answers(cluster)
        rotation = rotation.finished()
    roles = {options["owner"]: "database_owner_password", f"{options['user']}{rotation.wanted}": PASSWORD}
    passwords = {role: kept[name] for role, name in roles.items()}
    if SUPERUSER[0] in kept:
        passwords[ADMINISTRATOR] = kept[SUPERUSER[0]]
    granted = Command(cluster, "migrate").last_answer().get("grants")
    retired = [f"{options['user']}{login}" for login in rotation.retired]
    steps = ensure_roles(server, options, passwords, retired=retired, granted=granted, check=check)
    if rotation.login != rotation.wanted and not check:
        write_rotation(cluster, rotation.reached())
    return steps


def wait_for_last_answers(cluster: KubernetesClient) -> None:
    """Return once no pod of a release is about to end: it answers with the login of before. Raises ClusterError."""

    def ending() -> list[Object]:
        return [pod for pod in cluster.list("v1", "Pod", **labels("api")) if leaving(pod)]

    seconds = max((int(pod["metadata"].get("deletionGracePeriodSeconds", 0)) for pod in ending()), default=0)
    wait_until_gone(ending, seconds + MARGIN_SECONDS)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": KubernetesClient.OPTION | {"required": True},
            "labels": {"type": "dict", "default": labels("database")},
            "container": {"type": "str", "default": "postgresql"},
            **dict.fromkeys(("database", "owner", "user"), TEXT),
            "finish": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    steps = ["make the roles and the database"]
    try:
        with KubernetesClient.of(options["cluster"]) as cluster:
            pods = [pod for pod in cluster.list("v1", "Pod", **options["labels"]) if ready(pod) and not leaving(pod)]
            if pods:
                server = PodServer(cluster, str(pods[0]["metadata"]["name"]), options["container"])
                steps = keep(cluster, server, options, check=module.check_mode)
            elif not module.check_mode:
                module.fail_json(msg="the database's pod is not ready. Run the whole site once.")
    except KeyError as error:
        module.fail_json(msg=f"there is no secret {error} in the namespace. Run the whole site once.")
    except (ClusterError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result(steps))


if __name__ == "__main__":
    main()
