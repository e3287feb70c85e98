# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is built from, on the controller: the files, the name that they give it, the archive that is sent."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.validation import check_type_list
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import stable_hash, tree_files, tree_hash
from ansible_collections.whitestar.deploy.plugins.plugin_utils.dockerfile import wrong_arguments

LAYOUT = 1


@dataclass(frozen=True)
class BuildContext:
    """The inputs of an image. ``dockerfiles`` are the Dockerfile and, where there is one, its ignore file, by name."""

    context: Path
    exclude: list[str]
    dockerfiles: dict[str, Path]
    arguments: dict[str, Any]
    platforms: list[str]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> BuildContext:
        """The inputs as a module has them as options. Raises AnsibleActionFail for those that are not there."""
        context, dockerfile = Path(str(options["context"])), Path(str(options["dockerfile"]))
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
        arguments = dict(options.get("build_arguments", {}))
        if wrong := wrong_arguments(dockerfile.read_text(encoding="utf-8"), arguments):
            raise AnsibleActionFail("\n".join(wrong))
        return cls(
            context=context,
            exclude=[str(pattern) for pattern in options.get("exclude", [])],
            dockerfiles={name: path for name, path in files.items() if path.is_file()},
            arguments=arguments,
            platforms=[str(platform) for platform in check_type_list(options.get("platforms", []))],
        )

    def identity(self) -> str:
        """Twelve hexadecimal digits that name everything that goes into the image. Raises OSError."""
        texts = {name: path.read_text(encoding="utf-8") for name, path in self.dockerfiles.items()}
        tree = tree_hash(self.context, self.exclude)
        return stable_hash([LAYOUT, tree, texts, self.arguments, sorted(self.platforms)])[:12]

    def pack(self, archive: Path) -> None:
        """Write the archive that the target builds from: ``context/`` and the Dockerfile with its ignore file."""
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            for relative in tree_files(self.context, self.exclude):
                tar.add(self.context / relative, f"context/{relative}", recursive=False)
            for name, path in self.dockerfiles.items():
                tar.add(path, name)
