"""`python -m bench.compose`: runs of the site on Compose beside `docker compose up` alone, in turn, and what it takes.

Needs a Docker engine (`make lab`). Writes bench/results/compose.md, which `make docs` puts into bench/README.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.end_to_end.switch.site import ROOT, ComposeSite, new_site
from tests.engine import Engine

RESULTS = Path(__file__).resolve().parent / "results" / "compose.md"
GOALS = {"first": 45.0, "again": 10.0, "release": 25.0}
MORE_THAN_COMPOSE = 8.0  # seconds that a run which changes nothing may take longer than `docker compose up` does
REST_SECONDS = 20
CGROUPS = Path("/sys/fs/cgroup")


def timed(work: Callable[[], object]) -> float:
    """How many seconds it takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _compose_up(site: ComposeSite) -> None:
    command = [site.engine.program, "compose", "up", "--detach", "--pull", "never"]
    subprocess.run(command, cwd=site.state / "project", check=True, capture_output=True)


def _build(engine: Engine, tag: str, *options: str) -> None:
    engine("build", "--quiet", "--tag", tag, "--file", str(ROOT / "Dockerfile"), *options, str(ROOT / "service"))


def _taken(pid: int) -> tuple[float, float]:
    """Bytes of memory in use, file cache that can be given back left out, and seconds of processor time so far.

    Read from the control group of a container's first process, of version 1 or 2: what `docker stats` reads, which
    some engines answer with zeros.
    """
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    paths = {name: CGROUPS / name / path.lstrip("/") for _, names, path in lines for name in names.split(",") if name}
    if memory := paths.get("memory"):
        used, cache = memory / "memory.usage_in_bytes", "total_inactive_file"
        seconds = int((paths["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
    else:
        memory = next(CGROUPS / path.lstrip("/") for number, _, path in lines if number == "0")
        used, cache = memory / "memory.current", "inactive_file"
        seconds = _counted(memory / "cpu.stat", "usage_usec") / 1e6
    return int(used.read_text()) - _counted(memory / "memory.stat", cache), seconds


def _counted(path: Path, name: str) -> int:
    """The number that a file of lines "name number" has for a name."""
    return int(dict(line.split() for line in path.read_text().splitlines())[name])


def _at_rest(site: ComposeSite) -> tuple[float, float]:
    """MiB of memory and per cent of one processor that all containers take together while nobody asks anything."""
    containers = site.engine.inspect("container", *site.engine.containers(site.project))
    pids = [int(container["State"]["Pid"]) for container in containers]
    before = [_taken(pid) for pid in pids]
    time.sleep(REST_SECONDS)
    after = [_taken(pid) for pid in pids]
    seconds = sum(end - begin for (_, begin), (_, end) in zip(before, after, strict=True))
    return sum(memory for memory, _ in after) / 2**20, 100 * seconds / REST_SECONDS


def _size(engine: Engine, name: str) -> float:
    """Megabytes (10^6 bytes) of an image, unpacked."""
    return float(engine.inspect("image", name)[0]["Size"]) / 1e6


def measure(engine: Engine, rounds: int) -> str:
    """The report, in Markdown. Raises AssertionError when a run fails."""
    with new_site(engine) as site:
        assert isinstance(site, ComposeSite)
        cold = timed(lambda: _build(engine, f"{site.project}:cold", "--no-cache"))
        warm = timed(lambda: _build(engine, f"{site.project}:warm"))
        first = timed(site.succeed)
        again, alone, releases = [], [], []
        for number in range(rounds):
            alone.append(timed(lambda: _compose_up(site)))
            again.append(timed(site.succeed))
            site.change_service(f"# {number}")
            releases.append(timed(site.succeed))
        memory, processor = _at_rest(site)
        size = _size(engine, f"{site.project}:cold")
        engine("rmi", f"{site.project}:cold", f"{site.project}:warm")
    more = statistics.median(ours - theirs for ours, theirs in zip(again, alone, strict=True))
    rows = [
        ("first run, base images present", f"{first:.1f} s", f"{GOALS['first']:g} s"),
        ("run that changes nothing", seconds_in_words(again), f"{GOALS['again']:g} s"),
        ("`docker compose up --detach` of the same project", seconds_in_words(alone), "–"),
        ("what a run takes more than that", f"{more:.1f} s", f"{MORE_THAN_COMPOSE:g} s"),
        ("release of a changed source, its build included", seconds_in_words(releases), f"{GOALS['release']:g} s"),
        ("build without and with the cache", f"{cold:.1f} s, {warm:.1f} s", "–"),
        ("image, unpacked", f"{size:.0f} MB", "100 MB"),
        ("the stack at rest", f"{memory:.0f} MiB, {processor:.1f} % of one processor", "–"),
    ]
    lines = ["# The last committed run of the bench on Compose", ""]
    lines += [f"Medians of {rounds} rounds (lowest–highest), in turn, on one machine.", ""]
    lines += ["| Compose | measured | goal |", "|---|--:|--:|"]
    return "\n".join([*lines, *(f"| {what} | {found} | {goal} |" for what, found, goal in rows)]) + "\n"


def seconds_in_words(values: Sequence[float]) -> str:
    """Median, lowest and highest of some seconds."""
    return f"{statistics.median(values):.1f} s ({min(values):.1f}–{max(values):.1f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where there is no engine."""
    parser = argparse.ArgumentParser(prog="python -m bench.compose", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    try:
        engine = Engine.found()
    except LookupError as reason:
        print(f"not measured: {reason}", file=sys.stderr)
        return 2
    report = measure(engine, options.rounds)
    RESULTS.write_text(report)
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
