"""Draws what a command shows on a terminal: `python bin/picture.py first-run.svg make up` runs it and writes an SVG.

The command gets a terminal of 120 columns. What it clears again, such as a line that moves, is not in the picture. The
exit status is the command's.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

ROWS, COLUMNS = 50, 120
CLEAR = "\r\x1b[K"
STYLE = re.compile(r"\x1b\[([0-9;]*)m")
# Select Graphic Rendition (ECMA-48) as colours that are read on a dark ground.
COLOURS = {
    "31": "#f47067",
    "32": "#8ddb8c",
    "33": "#e3b341",
    "34": "#6cb6ff",
    "35": "#dcbdfb",
    "36": "#56d4dd",
    "90": "#8b949e",
}
GROUND, INK = "#1c2128", "#e6edf3"
# Browsers leave out spaces that follow one another, whatever is said of them.
NO_BREAK = "\N{NO-BREAK SPACE}"
# Pixels: of a character of this size, of a line, of the margin.
SIZE, CHARACTER, LINE, MARGIN = 14, 8.43, 19, 14


def shown(command: Sequence[str]) -> tuple[int, str]:
    """Run a command on a terminal of its own: its exit status and all that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "LINES"}}
    environment = kept | {"TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        output = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    return process.returncode, output.decode(errors="replace")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the last one who had it open has closed it
        return b""


def left(output: str) -> list[str]:
    """The lines that are there in the end, without those at its begin and end that are empty."""
    lines = [line.rpartition(CLEAR)[2].rstrip("\r") for line in output.replace("\r\n", "\n").split("\n")]
    return "\n".join(lines).strip("\n").split("\n")


def spans(line: str) -> Iterator[tuple[str, str]]:
    """The parts of a line, each with its colour."""
    colour = INK
    for number, part in enumerate(STYLE.split(line)):
        if number % 2:
            colour = next((COLOURS[code] for code in part.split(";") if code in COLOURS), INK)
        elif part:
            yield part, colour


def folded(line: str) -> list[list[tuple[str, str]]]:
    """The rows that a line takes on the terminal, each as its parts with their colours."""
    rows: list[list[tuple[str, str]]] = [[]]
    free = COLUMNS
    for part, colour in spans(line):
        text = part
        while text:
            if not free:
                rows.append([])
                free = COLUMNS
            rows[-1].append((text[:free], colour))
            text, free = text[free:], free - len(text[:free])
    return rows


def drawing(lines: Sequence[str]) -> str:
    """The lines as an SVG."""
    rows = [row for line in lines for row in folded(line)]
    lengths = [sum(len(part) for part, _ in row) for row in rows]
    width = round(2 * MARGIN + CHARACTER * max(lengths))
    height = 2 * MARGIN + LINE * len(rows)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    font = f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{SIZE}"'
    texts = [f'<rect width="100%" height="100%" rx="6" fill="{GROUND}"/>', f"<g {font}>"]
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        parts = "".join(f'<tspan fill="{colour}">{escape(part).replace(" ", NO_BREAK)}</tspan>' for part, colour in row)
        if parts:
            place = f'x="{MARGIN}" y="{MARGIN + LINE * number + SIZE}" textLength="{length * CHARACTER:.1f}"'
            texts.append(f"<text {place}>{parts}</text>")
    return "\n".join([head, *texts, "</g>", "</svg>"]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and write the picture."""
    parser = argparse.ArgumentParser(prog="bin/picture.py", description=__doc__)
    parser.add_argument("--title", help="the command as it is drawn")
    parser.add_argument("file", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    status, output = shown(options.command)
    title = options.title or " ".join(options.command)
    options.file.write_text(drawing([f"$ {title}", *left(output)]))
    return status


if __name__ == "__main__":
    sys.exit(main())
