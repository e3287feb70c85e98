"""Prints the TCP addresses that a process and its children listen on, one a line; the argument is its pid."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"  # proc(5): the state in hexadecimal, TCP_LISTEN of the kernel's net/tcp_states.h


def family(pid: int) -> Iterator[int]:
    """The process and everything below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))


def sockets(pid: int) -> set[str]:
    """Inodes of its sockets."""
    links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def listening() -> dict[str, str]:
    """Addresses as the kernel prints them (hexadecimal address:port), by the socket's inode."""
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    fields = [line.split() for line in lines]
    return {field[9]: field[1] for field in fields if field[3] == LISTENING}


def main() -> None:
    """The pid is the argument."""
    inodes = set().union(*(sockets(pid) for pid in family(int(sys.argv[1]))))
    print("\n".join(sorted({address for inode, address in listening().items() if inode in inodes})))


if __name__ == "__main__":
    main()
