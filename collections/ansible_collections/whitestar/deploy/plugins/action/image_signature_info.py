# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where image_signature_info looks: on the controller for an image, which it names; on the target for a directory."""

from __future__ import annotations

from typing import Any

from ansible_collections.whitestar.deploy.plugins.plugin_utils.build_context import BuildContext
from ansible_collections.whitestar.deploy.plugins.plugin_utils.in_process import ForkedModule


class ActionModule(ForkedModule):
    """See the module's documentation."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result."""
        super().run(tmp, task_vars)
        arguments, variables = dict(self._task.args), task_vars or {}
        if arguments.get("kind") != "image":
            return self._execute_module(module_args=arguments, task_vars=variables)
        arguments["identity"] = BuildContext.of(arguments).identity()
        # No target may have a say in what it is to serve.
        return self._execute_here(str(self._task.action), arguments, variables)
