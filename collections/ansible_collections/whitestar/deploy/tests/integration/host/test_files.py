# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files are whole or absent, whoever reads them, and also when the disk is full or the writer has died."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    exclusively,
    write_atomically,
)
from ansible_collections.whitestar.deploy.tests.helpers import module_environment


@pytest.fixture
def full_disk(place: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    mount = place / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small file system can be mounted by root only: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(full_disk: Path) -> None:
    write_atomically(full_disk / "file", b"old", 0o600)
    with pytest.raises(OSError, match="No space") as caught:
        write_atomically(full_disk / "file", b"x" * 200_000, 0o600)
    assert caught.value.errno == errno.ENOSPC
    assert (full_disk / "file").read_bytes() == b"old"
    assert [path.name for path in full_disk.iterdir()] == ["file"]


READER = """
import sys
from pathlib import Path
print("reading", flush=True)
for _ in range(1000):
    content = Path(sys.argv[1]).read_bytes()
    assert len(content) == 100_000 and len(set(content)) == 1
"""


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"a" * 100_000, 0o600)
    with subprocess.Popen([sys.executable, "-S", "-c", READER, str(path)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        for letter in b"bcdefghijklmnop":
            write_atomically(path, bytes([letter]) * 100_000, 0o600)
    assert reader.returncode == 0


def test_who_died_is_not_at_work_any_more(tmp_path: Path) -> None:
    path = "ansible_collections.whitestar.deploy.plugins.module_utils.common.files"
    code = f"import os, sys; from pathlib import Path; from {path} import exclusively\n"
    code += "with exclusively(Path(sys.argv[1])): os._exit(7)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], env=module_environment())
    assert done.returncode == 7
    with exclusively(tmp_path / "run", seconds=0.2):
        pass
