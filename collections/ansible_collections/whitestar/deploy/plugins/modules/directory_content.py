#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a tree of text files, and none that was written before and is no longer wanted."""

from __future__ import annotations

DOCUMENTATION = r"""
module: directory_content
short_description: Keep a tree of text files
description:
  - Writes each file that is not as it should be, whole or not at all.
  - Removes files that begin with O(header) and are no longer wanted, and directories that are empty then. Everything
    else below O(directory) is somebody else's and stays.
version_added: 1.0.0
author: The Titanic team (@whitestar)
options:
  directory: {description: "The directory, made if it is not there.", type: path, required: true}
  files: {description: Contents by path below O(directory)., type: dict, required: true}
  header: {description: How files begin that may be removed., type: str, required: true}
attributes:
  check_mode: {description: Says which files would be written or removed., support: full}
  diff_mode: {description: Shows the files before and after., support: full}
"""

EXAMPLES = r"""
- name: Create the manifest tree
  whitestar.deploy.directory_content:
    directory: /srv/manifests
    header: "# Rendered"
    files: {base/kustomization.yaml: "# Rendered\nresources: []\n"}
"""

RETURN = r"""
written: {description: Paths of the files that were written., returned: success, type: list, elements: str}
removed: {description: Paths of the files that were removed., returned: success, type: list, elements: str}
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    make_directory,
    tree_files,
    write_atomically,
)

MODE = 0o644
DIRECTORY_MODE = 0o755


def stale(directory: Path, wanted: Mapping[str, str], header: str) -> list[str]:
    """Files that were written before and are no longer wanted."""
    found = []
    for relative in tree_files(directory, [".git"]):
        path = directory / relative
        if str(relative) in wanted or path.is_symlink():
            continue
        with path.open("rb") as file:
            if file.read(len(header.encode())) == header.encode():
                found.append(str(relative))
    return found


def remove(directory: Path, relative: str) -> None:
    """Remove a file, and the directories that are empty then."""
    (directory / relative).unlink()
    for parent in list(PurePosixPath(relative).parents)[:-1]:
        with suppress(OSError):  # somebody else has something in it
            (directory / parent).rmdir()


def ensure_files(directory: Path, files: Mapping[str, str], header: str, *, check: bool) -> tuple[list[str], list[str]]:
    """Paths of the files that are, or would be, written and removed. Raises OSError, and ValueError for a path."""
    if outside := [path for path in files if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts]:
        raise ValueError(f"{', '.join(outside)}: not below the directory. Name a relative path without '..'.")
    written = [path for path, text in files.items() if not has_content(directory / path, text.encode(), MODE)]
    removed = stale(directory, files, header)
    if check:
        return written, removed
    for path in written:
        make_directory((directory / path).parent, DIRECTORY_MODE)
        write_atomically(directory / path, files[path].encode(), MODE)
    for path in removed:
        remove(directory, path)
    return written, removed


def shown(directory: Path, path: str) -> str:
    """A file as it is; empty where there is none."""
    with suppress(OSError):
        return (directory / path).read_text(encoding="utf-8", errors="replace")
    return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "header": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    directory, files, header = Path(module.params["directory"]), module.params["files"], module.params["header"]
    try:
        written, removed = ensure_files(directory, files, header, check=True)
        names = [*written, *removed]
        before = {path: shown(directory, path) for path in names}
        if not module.check_mode:
            ensure_files(directory, files, header, check=False)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{directory}: {error}")
    diff = [
        {"before_header": path, "after_header": path, "before": before[path], "after": files.get(path, "")}
        for path in names
    ]
    module.exit_json(changed=bool(names), written=written, removed=removed, diff=diff)


if __name__ == "__main__":
    main()
