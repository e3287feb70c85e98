# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was written into a directory of ours: a hash of each file, so that one that was edited since can be told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import read_json, write_json

# No .json: what is in a directory is found by how its name ends.
NAME = ".written"


def record_checksums(directory: Path, files: Mapping[str, bytes | None], owner: tuple[int, int] | None = None) -> None:
    """Take note of files below ``directory`` by their relative paths; None for one that is gone. Raises OSError."""
    before = read_checksums(directory)
    after = before | {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if content is not None
    }
    after = {name: digest for name, digest in after.items() if name not in files or files[name] is not None}
    if after != before:
        write_json(directory / NAME, after, owner=owner)


def read_checksums(directory: Path) -> dict[str, str]:
    """The hash of each file that was written there. Raises ValueError if that cannot be read."""
    found = read_json(directory / NAME, {})
    return found if isinstance(found, dict) else {}


def edited(directory: Path) -> Iterator[tuple[Path, str]]:
    """Each file that is not as it was written, and what has become of it."""
    for name, digest in sorted(read_checksums(directory).items()):
        path = directory / name
        if not path.is_file():
            yield path, "is gone"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            yield path, "was edited"
