"""Prints what a state directory holds, a line for each file and for each line of a dump of its database.

What was installed, thousands of files that never change, is a line for each release and each set of programs.

Where a Compose project is named too, what the engine has of it follows: containers with their start times, networks,
volumes, the dump of the database in its container, and its images. Where a command line of kubectl is, the objects of
its namespace follow with their resource versions, and the dump of the database in its pod. Left out is what changes by
itself: the server's own files, logs, metrics.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESTLESS = ("database/data", "database/log", "log", "run/blue.metrics", "run/green.metrics")
INSTALLED = ("images", "tools")

# A pod that leaves takes longer than it serves.
SETTLED_SECONDS = 60
KINDS = "configmap,secret,service,serviceaccount,pvc,deployment,statefulset,replicaset,pod,ingress,networkpolicy,pdb"


def files(root: Path) -> Iterator[str]:
    """Path, permission bits, owner, size in bytes, time of the last change in ns; directories and links too."""
    for directory, names, others in os.walk(root):
        here = Path(directory)
        names[:] = sorted(name for name in names if str((here / name).relative_to(root)) not in RESTLESS)
        for path in (here, *sorted(here / name for name in (*others, *names))):
            found = path.lstat()
            yield f"{path} {found.st_mode:o} {found.st_uid} {found.st_size} {found.st_mtime_ns}"
        if here.parent == root and here.name in INSTALLED:
            for path in (here / name for name in names if not (here / name).is_symlink()):
                lines = list(files(path))
                yield f"{path}/ {len(lines)} {hashlib.sha256(os.fsencode(chr(10).join(lines))).hexdigest()}"
            names.clear()


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


def cluster(kubectl: list[str]) -> Iterator[str]:
    """What there is in a namespace, but for what changes by itself: Jobs with their pods, leases, what scales."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while not all(map(settled, listed := json.loads(said([*kubectl, "get", KINDS, "--output", "json"]))["items"])):
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    for found in listed:
        metadata = found["metadata"]
        if "batch.kubernetes.io/job-name" not in metadata.get("labels", {}):
            yield f"{found['kind']} {metadata['name']} {metadata['resourceVersion']}"
    if any(found["metadata"]["name"] == "titanic-database-0" for found in listed):
        dump = ["pg_dump", "--restrict-key=0", "--username=postgres", "titanic"]
        yield from said([*kubectl, "exec", "titanic-database-0", "--", *dump]).splitlines()


def settled(found: dict[str, Any]) -> bool:
    """Whether an object will not change by itself any more, as pods do that leave, and who counts them."""
    status, spec = found.get("status", {}), found.get("spec", {})
    if found["kind"] == "Deployment":
        counts = {status.get(f"{name}Replicas", 0) for name in ("ready", "updated", "available")}
        return counts == {spec["replicas"]} == {status.get("replicas", 0)}
    if found["kind"] == "ReplicaSet":
        return bool(status.get("replicas", 0) == spec["replicas"])
    return "deletionTimestamp" not in found["metadata"]


def said(words: list[str]) -> str:
    """What a command says. Raises CalledProcessError."""
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout


def docker(*words: str) -> str:
    """What the client says. Raises CalledProcessError."""
    return said(["docker", *words])


def main() -> None:
    """The arguments are the state directory and, if there is one, the Compose project or a command line of kubectl."""
    root, *more = Path(sys.argv[1]), *sys.argv[2:]
    elsewhere = cluster(more) if len(more) > 1 else engine(more[0]) if more else ()
    print("\n".join([*files(root), *rows(root), *elsewhere]))


if __name__ == "__main__":
    main()
