# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are either wholly there or not at all, and hashes of whole trees."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Replace ``path`` with ``content`` (bytes) so that a reader or a crash sees the old or the new file, never a part.

    ``owner`` is (uid, gid). Raises OSError, for instance when the disk is full; nothing is left behind then.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """Replace ``path`` with ``value`` as :func:`write_atomically` does."""
    write_atomically(path, json_bytes(value), mode, owner)


def has_content(path: Path, content: bytes, mode: int) -> bool:
    """Whether ``path`` is a regular file with exactly this content (bytes) and these permission bits."""
    return (
        path.is_file()
        and not path.is_symlink()
        and path.stat().st_mode & 0o7777 == mode
        and path.read_bytes() == content
    )


def make_directory(path: Path, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Make ``path`` and its parents; set permission bits and owner of the last one even if it was there."""
    _make(path)
    path.chmod(mode)
    if owner is not None:
        os.chown(path, *owner)


def closed_to_others(path: Path) -> Path | None:
    """The first directory on the way to ``path`` that other accounts cannot enter."""
    return next((part for part in (*reversed(path.parents), path) if not part.stat().st_mode & 0o001), None)


def _make(path: Path) -> None:
    """Make ``path`` and its parents so that every account may enter what is new, whatever the umask is."""
    if not path.is_dir():
        _make(path.parent)
        path.mkdir(exist_ok=True)
        path.chmod(0o755)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Have files be made with this umask, by programs that are started meanwhile too."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def exclusively(directory: Path, seconds: float = 120) -> Iterator[None]:
    """Be the only one at work in ``directory``, which is made if it is missing; wait ``seconds`` for that at most.

    The step of a run that was killed can outlive the run, and must not meet the same step of the next one. Raises
    TimeoutError.
    """
    _make(directory)
    handle = os.open(directory, os.O_RDONLY)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"{directory}: a step of an earlier run is still at work. Wait for it."
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def tree_files(root: Path, exclude: Iterable[str]) -> Iterator[Path]:
    """Relative paths of the files and links below ``root`` in sorted order.

    ``exclude`` holds shell patterns; a path is left out when one matches a component of it or the whole relative path.
    """
    patterns = tuple(exclude)
    for directory, names, files in os.walk(root):
        here = Path(directory).relative_to(root)
        names[:] = sorted(name for name in names if not _excluded(here / name, patterns))
        # A link to a directory is a link, whatever os.walk calls it; it is not followed.
        for name in sorted([*files, *(name for name in names if (Path(directory) / name).is_symlink())]):
            if not _excluded(here / name, patterns):
                yield here / name


def _excluded(relative: Path, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(relative.name, pattern) or fnmatch(str(relative), pattern) for pattern in patterns)


def tree_hash(root: Path, exclude: Iterable[str]) -> str:
    """SHA-256 (hex) over names, execute bits and contents of the tree; times do not count."""
    digest = hashlib.sha256()
    for relative in tree_files(root, exclude):
        path = root / relative
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        kind = "l" if path.is_symlink() else "x" if os.access(path, os.X_OK) else "f"
        digest.update(f"{kind} {len(str(relative).encode())} {len(content)} {relative}".encode())
        digest.update(content)
    return digest.hexdigest()


def copy_tree(root: Path, destination: Path, exclude: Iterable[str]) -> None:
    """Copy what :func:`tree_hash` counts, and nothing else, to ``destination``."""
    for relative in tree_files(root, exclude):
        (destination / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / relative, destination / relative, follow_symlinks=False)


def stable_hash(value: Any) -> str:
    """SHA-256 (hex) of ``value`` as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_json(path: Path, default: Any) -> Any:
    """The JSON value in ``path``, ``default`` where there is no such file. Raises ValueError naming a broken file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error}). Move it away or restore it.") from error


def json_bytes(value: Any) -> bytes:
    """``value`` as indented JSON with a final newline, for files that people also read."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def exchange(one: Path, other: Path) -> None:
    """Have two paths change places in one step, so that neither is ever missing. Raises OSError.

    By renameat2(2) with RENAME_EXCHANGE, which Linux has since 3.15 and some network file systems have not.
    """
    library = ctypes.CDLL(None, use_errno=True)
    here = ctypes.c_int(_AT_FDCWD)
    if library.renameat2(here, os.fsencode(one), here, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))


_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
