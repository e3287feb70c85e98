# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option of modules that work on a Kubernetes target."""

from __future__ import annotations


class ModuleDocFragment:
    """Merged into DOCUMENTATION where a module names it."""

    DOCUMENTATION = r"""
options:
  cluster:
    description: The cluster and the namespace that the deployment lives in.
    type: dict
    required: true
    suboptions:
      kubectl: {description: The program that knows the cluster's credentials., type: str, default: kubectl}
      kubeconfig:
        description: File with the cluster's address and credentials; kubectl's own choice without it.
        type: path
      context: {description: The context of that file; its current one without it., type: str}
      namespace: {description: The namespace., type: str, required: true}
"""
