"""Prints the processes of a directory, even of one that is gone: by program, working directory or arguments."""

from __future__ import annotations

import sys
from pathlib import Path


def belongs(process: Path, root: str) -> bool:
    """Whether the process has anything to do with the directory. A process that ends meanwhile has not."""
    try:
        links = [str((process / name).readlink()) for name in ("exe", "cwd")]
        arguments = (process / "cmdline").read_text(errors="replace")
    except OSError:
        return False
    return root + "/" in arguments or any(link == root or link.startswith(root + "/") for link in links)


def main() -> None:
    """The directory is the argument, without a slash at its end."""
    root = sys.argv[1]
    for process in Path("/proc").glob("[0-9]*"):
        if belongs(process, root):
            print(process.name, (process / "cmdline").read_text().split("\0")[0])


if __name__ == "__main__":
    main()
