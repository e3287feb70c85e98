"""Turns measurements into medians, ratios, a table and a plot."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench.measure import Effort, Measurement
from bench.routes import Route

PACKAGES = (
    "asyncpg",
    "fastapi",
    "flask",
    "flask-sqlalchemy",
    "gevent",
    "gunicorn",
    "psycopg2-binary",
    "uvicorn",
    "uvloop",
)
GOALS = {
    ("strict", "fastapi"): {"one": 1.0, "list": 5.0, "create": 1.0},
    ("bounded", "fastapi"): {"one": 1.5},
    ("strict", "tutorial"): {"one": 3.0, "list": 20.0, "create": 3.0},
}
"""Requests per CPU second, as multiples of the peer's."""


@dataclass(frozen=True)
class Spread:
    """Median and range over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """One candidate on one route over all rounds."""

    route: str
    candidate: str
    per_cpu_second: Spread
    rate: Spread
    p50_ms: Spread
    p99_ms: Spread
    database_share: float
    """Share of the processor time that PostgreSQL took."""


@dataclass(frozen=True)
class Ratio:
    """One candidate's requests per CPU second over a peer's, round by round."""

    route: str
    candidate: str
    peer: str
    ratio: Spread
    goal: float | None


@dataclass(frozen=True)
class Report:
    """All that a run found out."""

    about: dict[str, Any]
    labels: dict[str, str]
    routes: dict[str, str]
    rows: list[Row]
    ratios: list[Ratio]
    measurements: list[Measurement]


def make_report(
    measurements: list[Measurement],
    labels: dict[str, str],
    routes: list[Route],
    effort: Effort,
    circumstances: dict[str, Any],
) -> Report:
    """Return the report on the measurements of one run."""
    rows = [_row(measurements, route.key, key) for route in routes for key in labels]
    ratios = [
        _ratio(measurements, route.key, ours, peer)
        for ours in ("strict", "bounded")
        for peer in ("fastapi", "tutorial")
        for route in routes
    ]
    about = {
        "processor": _processor(),
        "processors": len(_processors()),
        "system": platform.platform(),
        "python": platform.python_version(),
        **circumstances,
        "packages": {name: version(name) for name in PACKAGES},
        **asdict(effort),
    }
    return Report(about, labels, {route.key: route.label for route in routes}, rows, ratios, measurements)


def _row(measurements: list[Measurement], route: str, candidate: str) -> Row:
    chosen = _chosen(measurements, route, candidate)
    application = sum(one.application_cpu_seconds for one in chosen)
    database = sum(one.database_cpu_seconds for one in chosen)

    def spread(value: Callable[[Measurement], float]) -> Spread:
        return Spread.of([value(one) for one in chosen])

    return Row(
        route,
        candidate,
        spread(lambda one: one.per_cpu_second),
        spread(lambda one: one.rate),
        spread(lambda one: one.p50_ms),
        spread(lambda one: one.p99_ms),
        database / (application + database),
    )


def _ratio(measurements: list[Measurement], route: str, candidate: str, peer: str) -> Ratio:
    pairs = zip(_chosen(measurements, route, candidate), _chosen(measurements, route, peer), strict=True)
    ratio = Spread.of([ours.per_cpu_second / theirs.per_cpu_second for ours, theirs in pairs])
    return Ratio(route, candidate, peer, ratio, GOALS.get((candidate, peer), {}).get(route))


def _chosen(measurements: list[Measurement], route: str, candidate: str) -> list[Measurement]:
    chosen = [one for one in measurements if (one.route, one.candidate) == (route, candidate)]
    return sorted(chosen, key=lambda one: one.round)


def _processors() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return [line for line in lines if line.startswith("processor")]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def as_json(report: Report) -> str:
    """Return the whole report, every single measurement included."""
    return json.dumps(asdict(report), indent=1) + "\n"


TITLE = "# The last committed run of the bench"


def as_markdown(report: Report) -> str:
    """Return the tables of figures and of ratios."""
    about = report.about
    introduction = (
        f"Medians of {about['rounds']} rounds of {about['seconds']:g} s each (lowest–highest in brackets), "
        f"{about['connections']} connections, closed loop, on {about['processors']} x {about['processor']}, "
        f"Python {about['python']}, {about['postgresql']}. "
        f"Other programs took {about['elsewhere']:.0%} of the machine meanwhile."
    )
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    return "\n".join(
        [
            TITLE,
            "",
            introduction,
            "",
            "| route | candidate | requests / CPU s | requests / s | p50 ms | p99 ms | CPU in PostgreSQL |",
            "|---|---|--:|--:|--:|--:|--:|",
            *(_markdown_row(report, row) for row in report.rows),
            "",
            "Requests per CPU second, as multiples of the peer's:",
            "",
            "| candidate | peer | route | ratio | goal | reached |",
            "|---|---|---|--:|--:|---|",
            *(_markdown_ratio(report, ratio) for ratio in report.ratios),
            "",
            f"Packages: {packages}.",
            "",
        ]
    )


def _markdown_row(report: Report, row: Row) -> str:
    cells = [
        f"`{report.routes[row.route]}`",
        report.labels[row.candidate],
        f"{row.per_cpu_second.median:,.0f} ({row.per_cpu_second.low:,.0f}–{row.per_cpu_second.high:,.0f})",
        f"{row.rate.median:,.0f}",
        f"{row.p50_ms.median:.1f}",
        f"{row.p99_ms.median:.1f}",
        f"{row.database_share:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def _markdown_ratio(report: Report, ratio: Ratio) -> str:
    spread = ratio.ratio
    goal = "–" if ratio.goal is None else f"{ratio.goal:.1f}x"
    reached = "–" if ratio.goal is None else "yes" if spread.median >= ratio.goal else "**no**"
    cells = [
        report.labels[ratio.candidate],
        report.labels[ratio.peer],
        f"`{report.routes[ratio.route]}`",
        f"{spread.median:.2f}x ({spread.low:.2f}–{spread.high:.2f})",
        goal,
        reached,
    ]
    return f"| {' | '.join(cells)} |"
