"""Prints what a state directory holds, a line for each file and for each line of a dump of its database.

Where a Compose project is named too, what the engine has of it follows: containers with their start times, networks,
volumes, the dump of the database in its container, and its images. Left out is what changes by itself: the server's
own files, logs, metrics.
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


def engine(project: str) -> Iterator[str]:
    """What the engine has of a Compose project, one line each, and its images."""
    label = f"label=com.docker.compose.project={project}"
    questions = {
        "container": ["ls", "--all", "--quiet", "--no-trunc", "--filter", label],
        "network": ["ls", "--quiet", "--no-trunc", "--filter", label],
        "volume": ["ls", "--quiet", "--filter", label],
    }
    for kind, question in questions.items():
        names = docker(kind, *question).split()
        form = "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}" if kind == "container" else "{{json .}}"
        yield from docker(kind, "inspect", "--format", form, *names).splitlines() if names else []
    database = f"{project}-database-1"
    if database in docker("ps", "--format", "{{.Names}}").split():
        dump = ["pg_dump", "--restrict-key=0", "--username=postgres", "titanic"]
        yield from docker("exec", database, *dump).splitlines()
    # those of other scenarios come and go meanwhile
    for name in (project, f"*/{project}"):
        form = ["--no-trunc", "--format", "{{.ID}} {{.Repository}} {{.Tag}}"]
        yield from sorted(docker("image", "ls", "--filter", f"reference={name}", *form).splitlines())


def docker(*words: str) -> str:
    """What the client says. Raises CalledProcessError."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=60, check=True).stdout


def main() -> None:
    """The arguments are the state directory and, if there is one, the Compose project."""
    root = Path(sys.argv[1])
    print("\n".join([*files(root), *rows(root), *(engine(sys.argv[2]) if len(sys.argv) > 2 else ())]))


if __name__ == "__main__":
    main()
