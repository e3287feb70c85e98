# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of compose_image: names the release by its inputs, sends them only where they are missing."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.validation import check_type_list
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import stable_hash, tree_files, tree_hash
from ansible_collections.whitestar.deploy.plugins.module_utils.release.plan import why_not
from ansible_collections.whitestar.deploy.plugins.plugin_utils.dockerfile import wrong_arguments
from ansible_collections.whitestar.deploy.plugins.plugin_utils.in_process import ForkedModule

LAYOUT = 1


def identity(
    context: Path, exclude: list[str], dockerfiles: dict[str, Path], arguments: dict[str, Any], platforms: list[str]
) -> str:
    """Twelve hexadecimal digits that name everything that goes into the image. Raises OSError."""
    texts = {name: path.read_text(encoding="utf-8") for name, path in dockerfiles.items()}
    return stable_hash([LAYOUT, tree_hash(context, exclude), texts, arguments, sorted(platforms)])[:12]


def pack(archive: Path, context: Path, exclude: list[str], dockerfiles: dict[str, Path]) -> None:
    """Write the archive that the target builds from: ``context/`` and the Dockerfile with its ignore file."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for relative in tree_files(context, exclude):
            tar.add(context / relative, f"context/{relative}", recursive=False)
        for name, path in dockerfiles.items():
            tar.add(path, name)


class ActionModule(ForkedModule):
    """See the module's documentation."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the target for the image, and send the context if it has none."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        context, dockerfile = Path(str(arguments["context"])), Path(str(arguments["dockerfile"]))
        exclude = [str(pattern) for pattern in arguments.get("exclude", [])]
        if not context.is_dir():
            raise AnsibleActionFail(
                f"titanic_image_context: there is no directory {context} on this machine. "
                "Name the one that holds the project."
            )
        if not dockerfile.is_file():
            raise AnsibleActionFail(
                f"titanic_image_dockerfile: there is no file {dockerfile} on this machine. Name one that is there."
            )
        files = {"Dockerfile": dockerfile, "Dockerfile.dockerignore": Path(f"{dockerfile}.dockerignore")}
        files = {name: path for name, path in files.items() if path.is_file()}
        platforms = [str(platform) for platform in check_type_list(arguments.get("platforms", []))]
        build_arguments = dict(arguments.get("build_arguments", {}))
        if wrong := wrong_arguments(dockerfile.read_text(encoding="utf-8"), build_arguments):
            raise AnsibleActionFail("\n".join(wrong))
        arguments["identity"] = identity(context, exclude, files, build_arguments, platforms)
        if unplanned := why_not(arguments["identity"], str(arguments.get("planned", ""))):
            raise AnsibleActionFail(unplanned)
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        if not result.get("needs_context"):
            return result
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as archive:
            pack(Path(archive.name), context, exclude, files)
            # Without pipelining there is a directory already, with the module and its arguments in it.
            made = self._connection._shell.tmpdir  # noqa: SLF001 - where ActionBase keeps it
            place = str(made or self._make_tmp_path())
            arguments["archive"] = self._transfer_file(archive.name, f"{place}/context.tar.gz")
            try:
                result = self._execute_module(module_args=arguments, task_vars=task_vars)
            finally:
                self._remove_tmp_path(place, force=True)
        return result
