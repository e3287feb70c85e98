"""A picture of a terminal has what is left on it, in its colours."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from bin.picture import COLOURS, COLUMNS, INK, NO_BREAK, main

SVG = "{http://www.w3.org/2000/svg}"


def test_what_is_left_on_a_terminal_is_drawn(tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    script = r"printf '… moving\r\033[Ka \033[0;32mok\033[0m <b>\n\n'; [ -t 1 ]; exit 3"
    assert main(["--title", "make it", str(file), "sh", "-c", script]) == 3
    command, line = ET.parse(file).getroot().iter(f"{SVG}text")
    assert "".join(command.itertext()) == f"${NO_BREAK}make{NO_BREAK}it"
    parts = [(part.text, part.get("fill")) for part in line.iter(f"{SVG}tspan")]
    assert parts == [(f"a{NO_BREAK}", INK), ("ok", COLOURS["32"]), (f"{NO_BREAK}<b>", INK)]


def test_a_line_that_is_wider_than_the_terminal_goes_on_in_the_next_row(tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    assert main(["--title", "x", str(file), "sh", "-c", rf"printf '\033[0;31m%{COLUMNS + 3}s\033[0m.\n' end"]) == 0
    _, first, second = ET.parse(file).getroot().iter(f"{SVG}text")
    assert len("".join(first.itertext())) == COLUMNS
    assert [(part.text, part.get("fill")) for part in second.iter(f"{SVG}tspan")] == [
        ("end", COLOURS["31"]),
        (".", INK),
    ]
