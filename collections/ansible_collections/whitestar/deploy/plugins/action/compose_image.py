# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of compose_image: names the release by its inputs, sends them only where they are missing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.whitestar.deploy.plugins.module_utils.release.plan import why_not
from ansible_collections.whitestar.deploy.plugins.plugin_utils.build_context import BuildContext
from ansible_collections.whitestar.deploy.plugins.plugin_utils.in_process import ForkedModule


class ActionModule(ForkedModule):
    """See the module's documentation."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the target for the image, and send the context if it has none."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        source = BuildContext.of(arguments)
        arguments["identity"] = source.identity()
        if unplanned := why_not(arguments["identity"], str(arguments.get("planned", ""))):
            raise AnsibleActionFail(unplanned)
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        if not result.get("needs_context"):
            return result
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as archive:
            source.pack(Path(archive.name))
            # Without pipelining there is a directory already, with the module and its arguments in it.
            made = self._connection._shell.tmpdir  # noqa: SLF001 - where ActionBase keeps it
            place = str(made or self._make_tmp_path())
            arguments["archive"] = self._transfer_file(archive.name, f"{place}/context.tar.gz")
            try:
                result = self._execute_module(module_args=arguments, task_vars=task_vars)
            finally:
                self._remove_tmp_path(place, force=True)
        return result
