"""Byte-compiles a tree and gives all of it one time, so that the same content is the same layer whenever it is made.

Called in the Dockerfile as ``python finish.py TREE``, TREE being what will be ``/``. The byte code is checked against
nothing, neither time nor hash of its source: the image never changes. Scripts of packages that nobody calls in the
image, their tests and their C sources are removed.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import sys
from pathlib import Path

# 1980, the first year that zip files know: what builders of reproducible archives use.
TIME = 315532800
PROGRAMS = ("python", "titanic-")
LEFTOVERS = ("direct_url.json",)  # says where a wheel lay while it was installed
SOURCES = (".c", ".cpp", ".h", ".hpp", ".pxd", ".pyx", ".pyi")
# Of the packages this service uses, below site-packages: other databases, gevent's other event loop and resolver.
UNUSED = [
    *("sqlalchemy/dialects/mssql", "sqlalchemy/dialects/mysql", "sqlalchemy/dialects/oracle"),
    *("gevent/libuv", "gevent/resolver/cares*.so"),
]


def prune(packages: Path) -> None:
    """Remove what an installation brings that does not run."""
    for path in [path for pattern in UNUSED for path in packages.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in sorted(packages.rglob("*")):
        if path.is_dir() and path.name in ("tests", "testing") and (path / "__init__.py").is_file():
            shutil.rmtree(path)
        elif path.is_file() and (path.suffix in SOURCES or path.name in LEFTOVERS):
            path.unlink()


def main(tree: Path) -> None:
    """Prune, compile and date everything below ``tree``. Exits with a message if a file does not compile."""
    for script in tree.glob("opt/venv/bin/*"):
        if not script.name.startswith(PROGRAMS):
            script.unlink()
    for packages in tree.glob("opt/venv/lib/python*/site-packages"):
        prune(packages)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(tree, 99, quiet=1, stripdir=str(tree), prependdir="/", invalidation_mode=mode):
        raise SystemExit("a module does not compile")
    for directory, directories, files in os.walk(tree, topdown=False):
        for name in (*files, *directories, "."):  # a link to a directory is among the directories
            os.utime(Path(directory, name), (TIME, TIME), follow_symlinks=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
