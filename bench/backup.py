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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.client import ClientPlan, run_client
from bench.compose import seconds_in_words, timed
from bench.seed import write_passengers
from tests.end_to_end.switch.site import PERSON, LocalSite, new_site

RESULTS = Path(__file__).resolve().parent / "results" / "backup.md"
ROWS = 1_000_000
# How much as long as pg_basebackup a full backup may take, and what share of the full an incremental one.
FULL, INCREMENTAL = 1.5, 0.2
RESTORE_SECONDS = DRILL_SECONDS = 120.0
# What archiving may take of the writes that are acknowledged.
ARCHIVING = 0.1
WRITE_SECONDS, CONNECTIONS = 4.0, 16
CONFIRMED = ("-e", "titanic_confirm_restore=bench")
# One row in a hundred.
CHANGE = "UPDATE people SET fare = fare + 1 WHERE abs(hashtext(uuid::text)) % 100 = 0; CHECKPOINT"


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


def basebackup(site: LocalSite) -> None:
    """What PostgreSQL's own program does to the disk of the repository: one archive, neither compressed nor sealed."""
    place = site.state / "database" / "bench-basebackup"
    site.postgresql(
        "pg_basebackup", "--username", "postgres", "-D", str(place), "-F", "tar", "-X", "none", "-c", "fast"
    )
    shutil.rmtree(place)


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
        full, alone, part = [], [], []
        for _ in range(rounds):
            alone.append(timed(lambda: basebackup(site)))
            full.append(stage_seconds(site, "Backup", "--tags", "backup", "-e", "titanic_backup_kind=full"))
            site.administer(CHANGE)
            part.append(stage_seconds(site, "Backup", "--tags", "backup", "-e", "titanic_backup_kind=incremental"))
        drill = stage_seconds(site, "Drill", "--tags", "drill")
        restore = timed(lambda: _restore(site))
    ratio = statistics.median(ours / theirs for ours, theirs in zip(full, alone, strict=True))
    share = statistics.median(few / all_ for few, all_ in zip(part, full, strict=True))
    lines = [
        ("`pg_basebackup` to the same disk, neither compressed nor encrypted", seconds_in_words(alone), "–"),
        ("full backup, compressed and encrypted", seconds_in_words(full), "–"),
        ("as a multiple of `pg_basebackup`", f"{ratio:.2f}x", f"{FULL:g}x"),
        ("incremental backup after 1 % of the rows changed", seconds_in_words(part), "–"),
        ("as a share of the full one", f"{share:.2f}", f"{INCREMENTAL:g}"),
        ("drill: restored beside, every table compared", f"{drill:.1f} s", f"{DRILL_SECONDS:g} s"),
        ("the volume is gone: restored and serving", f"{restore:.1f} s", f"{RESTORE_SECONDS:g} s"),
        ("writes that archiving takes", f"{100 * statistics.median(lost):.1f} %", f"{100 * ARCHIVING:g} %"),
    ]
    head = [
        "# The last committed run of the bench of backups",
        "",
        f"{rows:,} rows on `local`, {rounds} rounds in turn.",
    ]
    table = [
        "",
        "| backups | measured | goal, at most |",
        "|---|--:|--:|",
        *(f"| {a} | {b} | {c} |" for a, b, c in lines),
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
