"""`python -m bench`: measure, print the tables, write `bench/results/latest.{json,md,svg,png}`."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.candidates import Running, running_candidates
from bench.measure import Effort, Others, measure
from bench.plot import draw
from bench.postgres import Postgres, running_postgres
from bench.report import Report, as_json, as_markdown, make_report
from bench.routes import compare, routes

RESULTS = Path(__file__).parent / "results"
QUICK_RESULTS = Path(__file__).parent.parent / ".reports/bench"


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement (default %(default)s)")
    parser.add_argument("--connections", type=int, default=32, help="clients at once (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s: shows that it works, not how fast")
    parser.add_argument("--output", type=Path, help="where to write (default bench/results; quick: .reports/bench)")
    chosen = parser.parse_args(arguments)
    if not (1 <= chosen.rounds <= 100 and 0.1 <= chosen.seconds <= 60 and 1 <= chosen.connections <= 256):
        parser.error("1 to 100 rounds, 0.1 to 60 seconds, 1 to 256 connections")
    return chosen


def _run(effort: Effort) -> Report:
    # A short path: the name of a Unix socket has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="titanic-bench-") as name:
        directory = Path(name)
        with running_postgres(directory) as postgres, running_candidates(postgres, directory) as servers:
            return _measured(servers, postgres, effort)


def _measured(servers: list[Running], postgres: Postgres, effort: Effort) -> Report:
    asked = routes(compare(servers, postgres))
    others = Others()
    found = measure(servers, asked, postgres, effort)
    elsewhere = others.share()
    compare(servers, postgres)  # Still the same answers: nobody was quick by being wrong.
    labels = {server.candidate.key: server.candidate.label for server in servers}
    return make_report(found, labels, asked, effort, {"postgresql": postgres.version(), "elsewhere": elsewhere})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when measured, 1 with one line when something could not be."""
    chosen = _arguments(arguments)
    rounds, seconds = (2, 1.0) if chosen.quick else (chosen.rounds, chosen.seconds)
    output = chosen.output or (QUICK_RESULTS if chosen.quick else RESULTS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Leaves the blocks below, which stop what was started.
    try:
        report = _run(Effort(rounds, seconds, chosen.connections))
    except (RuntimeError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    output.mkdir(parents=True, exist_ok=True)
    (output / "latest.json").write_text(as_json(report))
    (output / "latest.md").write_text(as_markdown(report))
    print(as_markdown(report))
    print(*draw(report, output), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
