"""Prints what a state directory holds, a line for each file and for each line of a dump of its database.

Left out is what changes by itself: the server's own files, logs, metrics.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

RESTLESS = ("database/data", "database/log", "log", "run/blue.metrics", "run/green.metrics")


def files(root: Path) -> Iterator[str]:
    """Path, permission bits, owner, size in bytes, time of the last change in ns; directories and links too."""
    for directory, names, others in os.walk(root):
        here = Path(directory)
        names[:] = sorted(name for name in names if str((here / name).relative_to(root)) not in RESTLESS)
        for path in (here, *sorted(here / name for name in (*others, *names))):
            found = path.lstat()
            yield f"{path} {found.st_mode:o} {found.st_uid} {found.st_size} {found.st_mtime_ns}"


def rows(root: Path) -> Iterator[str]:
    """A dump of the database as its owner, nothing while it does not run."""
    if not (root / "database/run/.s.PGSQL.5432").exists():
        return
    command = [f"{root}/tools/postgresql/bin/pg_dump", "--restrict-key=0", "-h", f"{root}/database/run"]
    password = (root / "secrets/database_owner_password").read_text()
    done = subprocess.run(
        [*command, "-U", "titanic_owner", "titanic"],
        env={"PATH": "/usr/bin:/bin", "PGPASSWORD": password},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    yield from done.stdout.splitlines()


def main() -> None:
    """The state directory is the argument."""
    root = Path(sys.argv[1])
    print("\n".join([*files(root), *rows(root)]))


if __name__ == "__main__":
    main()
