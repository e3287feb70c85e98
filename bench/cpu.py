"""Processor time of whole process trees, from /proc (Linux)."""

from collections.abc import Collection
from os import sysconf
from pathlib import Path
from typing import NamedTuple


class _Process(NamedTuple):
    parent: int
    ticks: int


def cpu_seconds(roots: Collection[int]) -> float:
    """Return the seconds of processor time used so far by the processes `roots` and everything they started.

    Adds `utime + stime + cutime + cstime` (proc_pid_stat(5)) of each process alive in the trees. The last two are those
    of children that have ended and been waited for, theirs included, so that a short-lived worker or database backend
    counts too, and nothing counts twice. The clock's unit is 10 ms a process. Raises `ProcessLookupError` if a root is
    gone.
    """
    processes = _processes()
    children: dict[int, list[int]] = {}
    for number, process in processes.items():
        children.setdefault(process.parent, []).append(number)
    ticks, waiting = 0, list(roots)
    while waiting:
        number = waiting.pop()
        if number in processes:
            ticks += processes[number].ticks
            waiting += children.get(number, [])
        elif number in roots:
            raise ProcessLookupError(f"process {number} has ended")
    return ticks / sysconf("SC_CLK_TCK")


def machine_cpu_seconds() -> float:
    """Return the seconds that the machine's processors were busy since it started, time stolen by others included."""
    user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, _first_line_of_stat()[1:9])
    return (user + nice + system + sum(interrupts_and_stolen)) / sysconf("SC_CLK_TCK")


def _first_line_of_stat() -> list[str]:
    return Path("/proc/stat").read_text().splitlines()[0].split()


def _processes() -> dict[int, _Process]:
    found = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                # The program's name, in brackets, may hold anything; what follows its end is numbers.
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(directory.name)] = _Process(int(fields[1]), sum(map(int, fields[11:15])))
    return found
