"""Copies what a Python program needs to run, and nothing else, from this file system into an empty one.

Called in the Dockerfile as ``python root.py DESTINATION [DIRECTORY…]``: the interpreter that runs it, the standard
library, and the shared libraries of the system that those and the programs below each DIRECTORY link to. No shell, no
package manager, no pip. Debian's notes on each package that a library came from are kept for scanners and lawyers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

# Parts of the standard library that a server has no use for, and what only builds or tests it.
UNUSED = [
    *("_pyrepl", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tkinter"),
    *(
        "turtle.py",
        "turtledemo",
        "venv",
        "config-*",
        "__pycache__",
        "_test*.so",
        "_xxtest*.so",
        "xx*.so",
        "_ctypes_test*.so",
    ),
    *("_curses*.so", "curses", "_dbm*.so", "_gdbm*.so", "_tkinter*.so", "readline*.so"),
]
IDENTITIES = {"root": 0, "titanic": 10001, "nobody": 65534}
ACCOUNTS = {
    "etc/passwd": "".join(f"{name}:x:{number}:{number}:{name}:/:/nologin\n" for name, number in IDENTITIES.items()),
    "etc/group": "".join(f"{name}:x:{number}:\n" for name, number in IDENTITIES.items()),
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
SYSTEM = ["etc/ld.so.cache", "etc/os-release", "etc/ssl/certs/ca-certificates.crt", "usr/share/zoneinfo"]
# Zones under other names, and a second set that counts leap seconds.
OTHER_ZONES = ["posix", "right"]


def copy_python(root: Path) -> None:
    """The interpreter with its usual names, its own library if it has one, and the standard library."""
    binary = Path(sys.executable).resolve()
    place = root / binary.parent.relative_to("/")
    place.mkdir(parents=True)
    shutil.copy2(binary, place)
    for name in ("python3", "python"):
        (place / name).symlink_to(binary.name)
    for file in Path(sys.base_prefix, "lib").glob("libpython3*.so*"):
        target = root / file.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target, follow_symlinks=False)
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, root / library.relative_to("/"), symlinks=True, ignore=shutil.ignore_patterns(*UNUSED))


def is_elf(file: Path) -> bool:
    """Whether this is a program or a shared library."""
    with file.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def linked(directories: Iterable[Path]) -> set[Path]:
    """Shared libraries outside of the directories that programs and libraries inside of them are linked to."""
    files = [file for directory in directories for file in directory.rglob("*") if file.is_file()]
    objects = [str(file) for file in files if not file.is_symlink() and is_elf(file)]
    # ldd says "not found" of nothing that runs: modules of libraries that the base image lacks would fail here
    listed = subprocess.run(["ldd", *objects], capture_output=True, text=True, check=True).stdout
    if missing := set(re.findall(r"(\S+) => not found", listed)):
        raise SystemExit(f"libraries that are linked to but not there: {', '.join(sorted(missing))}")
    found = {Path(path) for path in re.findall(r"(?:=> |^\s)(/\S+) \(0x", listed, re.MULTILINE)}
    return {path for path in found if not any(path.is_relative_to(directory) for directory in directories)}


def copy_library(library: Path, root: Path) -> Path:
    """A library under the name that it is linked by; returns where it really is."""
    real = library.resolve()
    target = root / library.parent.resolve().relative_to("/") / library.name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(real, target)
    return real


def note_packages(files: Iterable[Path], root: Path) -> None:
    """What dpkg knows of the packages that the files come from, where scanners look in images without dpkg."""
    names = [str(file) for file in sorted(files)]
    listed = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True).stdout
    status = root / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for package in sorted({line.partition(": ")[0] for line in listed.splitlines()}):
        name = package.partition(":")[0]
        notes = subprocess.run(["dpkg-query", "--status", package], capture_output=True, text=True, check=True).stdout
        (status / name).write_text(notes)
        licence = Path("/usr/share/doc") / name / "copyright"
        if licence.is_file():
            (root / "usr/share/doc" / name).mkdir(parents=True)
            shutil.copy2(licence, root / "usr/share/doc" / name)


def copy_system(root: Path) -> None:
    """Accounts, certificates, time zones, places for temporary files."""
    for name, text in ACCOUNTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in SYSTEM:
        source, target = Path("/", name), root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*OTHER_ZONES))
        elif source.is_file():
            shutil.copy2(source, target)
    for name in ("lib", "lib64"):
        if (root / "usr" / name).is_dir():
            (root / name).symlink_to(f"usr/{name}")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "run/titanic").mkdir(parents=True)
    os.chown(root / "run/titanic", IDENTITIES["titanic"], IDENTITIES["titanic"])


def main(arguments: list[str]) -> None:
    """Fill the destination. Exits with a message if a library that is linked to is missing."""
    root, programs = Path(arguments[0]), [Path(name) for name in arguments[1:]]
    root.mkdir()
    copy_python(root)
    libraries = linked([root, *programs])
    note_packages({copy_library(library, root) for library in libraries}, root)
    copy_system(root)


if __name__ == "__main__":
    main(sys.argv[1:])
