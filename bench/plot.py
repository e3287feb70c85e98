"""Draws what a run found out."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench.report import Report

COLOURS = {"strict": "#0b5cad", "bounded": "#7fb2e5", "fastapi": "#d9822b", "tutorial": "#8a8f98"}


def draw(report: Report, directory: Path) -> list[Path]:
    """Write `latest.svg` and `latest.png`: one panel a route, one bar a candidate, whiskers lowest to highest."""
    mpl.rcParams.update({"font.size": 10, "font.family": "DejaVu Sans", "svg.hashsalt": "titanic"})
    figure, panels = plt.subplots(1, len(report.routes), figsize=(12, 3.4), sharey=True)
    for panel, route in zip(panels, report.routes, strict=True):
        _draw_panel(panel, report, route)
    about = report.about
    figure.suptitle(
        "Requests per CPU second of server and PostgreSQL together (more is better)", x=0.01, ha="left", weight="bold"
    )
    figure.text(
        0.01,
        0.02,
        f"Median of {about['rounds']} rounds, whiskers lowest to highest. 2 workers each, one {about['postgresql']}, "
        f"{about['connections']} connections, Python {about['python']}, {about['processors']} processors.",
        size=8.5,
        color="#555555",
    )
    figure.tight_layout(rect=(0, 0.05, 1, 0.99))
    paths = [directory / "latest.svg", directory / "latest.png"]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=160)
    plt.close(figure)
    return paths


def _draw_panel(panel: Axes, report: Report, route: str) -> None:
    rows = [row for row in report.rows if row.route == route]
    spreads = [row.per_cpu_second for row in rows]
    longest = max(spread.high for spread in spreads)
    for place, (row, spread) in enumerate(zip(rows, spreads, strict=True)):
        panel.barh(place, spread.median, height=0.66, color=COLOURS[row.candidate])
        panel.hlines(place, spread.low, spread.high, color="#222222", linewidth=1.2)
        panel.text(spread.high + longest * 0.02, place, f"{spread.median:,.0f}", va="center", backgroundcolor="white")
    panel.set_yticks(range(len(rows)), [report.labels[row.candidate] for row in rows])
    panel.invert_yaxis()
    panel.set_xlim(0, longest * 1.2)
    panel.set_title(report.routes[route], loc="left", size=10.5)
    panel.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color="#dddddd", linewidth=0.8)
    panel.set_axisbelow(True)
