"""`python -m bench.backup`: backups of a million rows on `local` beside `pg_basebackup`, and what archiving costs.

Writes bench/results/backup.md, which `make docs` puts into bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.client import ClientPlan, run_client
from bench.compose import seconds_in_words, timed
from bench.cpu import cpu_seconds
from bench.seed import write_passengers
from tests.end_to_end.switch.site import PERSON, LocalSite, new_site

RESULTS = Path(__file__).resolve().parent / "results" / "backup.md"
ROWS = 1_000_000
PLAIN = "`pg_basebackup` to the same disk, neither compressed nor encrypted"
ALIKE = "`pg_basebackup`, compressed by gzip at level 1 (what this PostgreSQL has), not encrypted"
FULL_BACKUP = "full backup, compressed and encrypted"
# How much as long as pg_basebackup a full backup may take, and what share of the full an incremental one.
FULL, INCREMENTAL = 1.5, 0.2
RESTORE_SECONDS = DRILL_SECONDS = 120.0
# What archiving may take of the writes that are acknowledged.
ARCHIVING = 0.1
WRITE_SECONDS, CONNECTIONS = 4.0, 16
CONFIRMED = ("-e", "titanic_confirm_restore=bench")
# One row in a hundred: which ones decides how many pages of the table and of its ten indexes that touches.
CHANGES = {
    "nothing changed": "false",
    "the newest 1 % of the rows changed": "position >= {rows} * 0.99 AND position < {rows}",
    "1 % of the rows changed, at random": "abs(hashtext(uuid::text)) % 100 = 0",
}
CHANGE = "UPDATE people SET fare = fare + 1 WHERE {where}; CHECKPOINT"


class Cost(NamedTuple):
    """Seconds that something took, seconds of processor of all processes, and bytes of the database that it holds."""

    seconds: float
    cpu: float
    size: int = 0


@contextmanager
def site_with(passengers: Path, *, backups: bool) -> Iterator[LocalSite]:
    """A deployment with these passengers, whose database is backed up or not."""
    with new_site(None) as site:
        assert isinstance(site, LocalSite)
        repository = site.state.with_name(f"{site.state.name}-backups")
        site.settings["titanic_seed_csv"] = str(passengers)
        if backups:
            site.settings |= {
                "titanic_backup_enabled": True,
                "titanic_backup_repositories": [{"path": str(repository)}],
                "titanic_backup_site": "bench",
                "titanic_backup_python": sys.executable,
            }
        try:
            site.succeed()
            yield site
        finally:
            shutil.rmtree(repository, ignore_errors=True)


def stage_seconds(site: LocalSite, stage: str, *arguments: str) -> float:
    """A run that must succeed: the seconds of one of its stages, as the summary has them."""
    with tempfile.TemporaryDirectory() as place:
        summary = Path(place) / "run.json"
        given = {"TITANIC_SUMMARY_FILE": str(summary), "ANSIBLE_STDOUT_CALLBACK": "whitestar.deploy.progress"}
        done = subprocess.run(
            site.command(*arguments), cwd=site.project_root, env=os.environ | given, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
        (host,) = json.loads(summary.read_text())["hosts"].values()
    return sum(float(each["seconds"]) for each in host["stages"] if each["name"] == stage)


def cost_of(site: LocalSite, work: Callable[[], float]) -> Cost:
    """What ``work`` costs, which returns its seconds: PostgreSQL's share of the processor is counted too."""
    trees = {os.getpid(), site.pid("database")}
    before = cpu_seconds(trees)
    seconds = work()
    return Cost(seconds, cpu_seconds(trees) - before)


def basebackup(site: LocalSite, *options: str) -> Cost:
    """PostgreSQL's own program: one archive on the disk of the repository, which is not encrypted."""
    place = site.state / "database" / "bench-basebackup"
    words = ["pg_basebackup", "--username", "postgres", "-D", str(place), "-F", "tar", "-X", "none", "-c", "fast"]
    found = cost_of(site, lambda: timed(lambda: site.postgresql(*words, *options)))
    shutil.rmtree(place)
    return found


def backup(site: LocalSite, kind: str, idle: float) -> Cost:
    """A backup by a run; ``idle`` are the seconds of processor of such a run that makes none."""
    words = ("--tags", "backup", "-e", f"titanic_backup_kind={kind}")
    found = cost_of(site, lambda: stage_seconds(site, "Backup", *words))
    events: list[Any] = json.loads((site.state / "ledger.json").read_text())["events"]
    return Cost(found.seconds, found.cpu - idle, [each for each in events if each["kind"] == "backup"][-1]["bytes"])


def _write_rate(site: LocalSite) -> float:
    """Acknowledged writes a second. Raises AssertionError when one fails."""
    body = json.dumps(PERSON)
    head = f"POST /people HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    plan = ClientPlan(site.port, [f"{head}\r\n\r\n{body}"], 201, WRITE_SECONDS, CONNECTIONS)
    result = run_client(plan)
    assert result.failed == 0, f"{result.failed} writes failed"
    return result.rate


def _share_lost(plain: LocalSite, archiving: LocalSite, rounds: int) -> list[float]:
    """What share of the writes of a deployment without backups one with them does not reach, in each round."""
    found = []
    for number in range(rounds):
        pair = (plain, archiving) if number % 2 else (archiving, plain)
        rates = {site: _write_rate(site) for site in pair}
        found.append(1 - rates[archiving] / rates[plain])
    return found


def _restore(site: LocalSite) -> None:
    """The volume is gone, and the newest backup serves again."""
    site.kill("database")
    shutil.rmtree(site.state / "database/data")
    site.succeed("--tags", "restore", "-e", "titanic_restore_to=latest", *CONFIRMED)


def _round(site: LocalSite, rows: int) -> Iterator[tuple[str, Cost]]:
    """Each kind of backup once."""
    yield PLAIN, basebackup(site)
    yield ALIKE, basebackup(site, "--compress", "client-gzip:1")
    idle = cost_of(site, lambda: timed(lambda: site.succeed("--tags", "backup", "--check"))).cpu
    yield FULL_BACKUP, backup(site, "full", idle)
    for name, where in CHANGES.items():
        site.administer(CHANGE.format(where=where.format(rows=rows)))
        yield name, backup(site, "incremental", idle)


def _seconds(costs: Sequence[Cost]) -> str:
    return seconds_in_words([each.seconds for each in costs])


def _cpu(costs: Sequence[Cost]) -> str:
    return seconds_in_words([each.cpu for each in costs])


def _ratios(ours: Sequence[Cost], theirs: Sequence[Cost]) -> tuple[str, str]:
    pairs = list(zip(ours, theirs, strict=True))
    wall, cpu = (statistics.median(a[field] / b[field] for a, b in pairs) for field in (0, 1))
    return f"{wall:.2f}x", f"{cpu:.2f}x"


def _shares(part: Sequence[Cost], full: Sequence[Cost]) -> tuple[str, str]:
    pairs = list(zip(part, full, strict=True))
    wall, cpu, size = (statistics.median(a[field] / b[field] for a, b in pairs) for field in range(3))
    return f"{wall:.2f}, of the bytes {size:.2f}", f"{cpu:.2f}"


def measure(rows: int, rounds: int) -> str:
    """The report, in Markdown. Raises AssertionError when a run or a write fails."""
    with tempfile.TemporaryDirectory(prefix="titanic-bench-") as name, ExitStack() as stack:
        passengers, few = Path(name) / "passengers.csv", Path(name) / "few.csv"
        write_passengers(passengers, rows)
        write_passengers(few, 887)
        Path(name).chmod(0o755)
        plain, archiving = (stack.enter_context(site_with(few, backups=on)) for on in (False, True))
        lost = _share_lost(plain, archiving, rounds)
        site = stack.enter_context(site_with(passengers, backups=True))
        found: dict[str, list[Cost]] = {}
        for _ in range(rounds):
            for what, cost in _round(site, rows):
                found.setdefault(what, []).append(cost)
        drill = stage_seconds(site, "Drill", "--tags", "drill")
        restore = timed(lambda: _restore(site))
    full, plain_cost, alike = found[FULL_BACKUP], found[PLAIN], found[ALIKE]
    lines = [
        *((name, _seconds(costs), _cpu(costs), "–") for name, costs in found.items() if name not in CHANGES),
        ("the full backup as a multiple of `pg_basebackup`", *_ratios(full, plain_cost), f"{FULL:g}x"),
        ("the same, where that compresses", *_ratios(full, alike), "–"),
        *((f"incremental: {name}", _seconds(found[name]), _cpu(found[name]), "–") for name in CHANGES),
        *((f"as a share of the full one: {name}", *_shares(found[name], full), f"{INCREMENTAL:g}") for name in CHANGES),
        ("drill: restored beside, every table compared", f"{drill:.1f} s", "", f"{DRILL_SECONDS:g} s"),
        ("the volume is gone: restored and serving", f"{restore:.1f} s", "", f"{RESTORE_SECONDS:g} s"),
        ("writes that archiving takes", f"{100 * statistics.median(lost):.1f} %", "", f"{100 * ARCHIVING:g} %"),
    ]
    head = [
        "# The last committed run of the bench of backups",
        "",
        f"{rows:,} rows on `local`, {rounds} rounds in turn. A backup's time is that of its stage in a run.",
        "Processor: of all processes and of PostgreSQL, less what such a run takes that makes no backup.",
    ]
    table = [
        "",
        "| backups | measured | processor | goal, at most |",
        "|---|--:|--:|--:|",
        *(f"| {' | '.join(line)} |" for line in lines),
    ]
    return "\n".join([*head, *table]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.backup", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    report = measure(options.rows, options.rounds)
    RESULTS.write_text(report)
    print(report)
    return 0


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"measured in {time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(status)
