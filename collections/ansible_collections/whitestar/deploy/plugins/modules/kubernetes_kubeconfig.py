#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a kubeconfig with which a service account is used from outside of the cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_kubeconfig
short_description: Write the kubeconfig of a service account
description:
  - Asks the cluster for a token of the account that ends by itself, and writes it with the cluster's address to a file
    that its owner alone can read.
  - A file whose token is good for more than half of the time is left alone.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.cluster
options:
  account: {description: The service account., type: str, required: true}
  path: {description: The file., type: path, required: true}
  days: {description: "How long the token is good, in days. The cluster may allow less.", type: int, default: 30}
attributes:
  check_mode: {description: Says whether the file would be written., support: full}
  diff_mode: {description: The token is never shown., support: none}
"""

EXAMPLES = r"""
- name: Create the kubeconfig of the deployer
  whitestar.deploy.kubernetes_kubeconfig:
    cluster: {namespace: titanic}
    account: titanic-deployer
    path: deployer.kubeconfig
"""

RETURN = r"""
until:
  description: When the token ends, UTC in ISO 8601; empty in check mode where it would be made.
  returned: success
  type: str
"""

import base64
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import write_json
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient

DAY_SECONDS = 86400


def kubeconfig(cluster: KubernetesClient, account: str, token: str) -> dict[str, Any]:
    """A kubeconfig, as JSON, which is YAML. Raises ClusterError."""
    used = json.loads(cluster.run("config", "view", "--minify", "--flatten", "--raw", "--output", "json"))
    (server,) = used["clusters"]
    name = f"{account}@{cluster.namespace}"
    context = {"cluster": server["name"], "user": name, "namespace": cluster.namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [server],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }


def until(path: Path) -> float:
    """When the token in a file ends, in seconds since 1970; 0 if there is none."""
    try:
        token = json.loads(path.read_text(encoding="utf-8"))["users"][0]["user"]["token"]
        claims = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return 0.0


def make(cluster: KubernetesClient, options: dict[str, Any], path: Path) -> None:
    """Write the file. Raises ClusterError, OSError."""
    where = cluster.address("v1", "ServiceAccount", options["account"], "token")
    wanted = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": options["days"] * DAY_SECONDS},
    }
    answer = cluster.request("POST", where, wanted)
    if answer is None:
        raise ClusterError(
            f"there is no service account {options['account']} in namespace {cluster.namespace}. Apply it first."
        )
    content = kubeconfig(cluster, options["account"], answer["status"]["token"])
    write_json(path, content, 0o600)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": KubernetesClient.OPTION | {"required": True},
            "account": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "days": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    options = module.params
    path = Path(options["path"])
    needed = until(path) < time.time() + options["days"] * DAY_SECONDS / 2
    try:
        if needed and not module.check_mode:
            with KubernetesClient.of(options["cluster"]) as cluster:
                make(cluster, options, path)
    except (ClusterError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    end = until(path)
    module.exit_json(changed=needed, until=datetime.fromtimestamp(end, UTC).isoformat() if end else "")


if __name__ == "__main__":
    main()
