# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of the roles for those who do not run Ansible against the cluster: a Kustomize tree and a Helm chart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.whitestar.deploy.plugins.plugin_utils.helm_chart import helm_chart
from ansible_collections.whitestar.deploy.plugins.plugin_utils.kustomize import kustomize_tree
from ansible_collections.whitestar.deploy.plugins.plugin_utils.manifest_export import (
    ExportError,
    exported,
    plain,
    secret_keys,
)


def manifests(stages: Mapping[str, Sequence[Any]], settings: Mapping[str, Any]) -> dict[str, str]:
    """The files of both by their paths, below ``kustomize`` and ``chart``.

    ``stages`` has the objects of each stage by its name, ``settings`` has ``jobs`` (``roles``, ``migrate``, ``seed``),
    ``secrets`` (what titanic_secrets gave back), ``replicas``, ``overlays`` and ``version``. Raises AnsibleFilterError.
    """
    stages, settings = plain(stages), plain(settings)
    secrets, replicas = settings["secrets"], int(settings["replicas"])
    try:
        found = exported(stages, settings["jobs"], list(secrets["readers"]), replicas)
        tree = kustomize_tree(found, secrets, settings["overlays"])
        chart = helm_chart(found, secrets["readers"], replicas, str(settings["version"]))
    except ExportError as error:
        raise AnsibleFilterError(str(error)) from error
    return {f"kustomize/{path}": text for path, text in tree.items()} | {
        f"chart/{path}": text for path, text in chart.items()
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {"secret_keys": secret_keys, "manifests": manifests}
