# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line that says what takes long: drawn and cleared on a terminal, plain elsewhere, gone at the end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common import progress
from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report, reported
from ansible_collections.whitestar.deploy.plugins.plugin_utils import running_line
from ansible_collections.whitestar.deploy.plugins.plugin_utils.running_line import CLEAR, RunningLine
from ansible_collections.whitestar.deploy.tests.helpers import wait_for


class Screen:
    """A display that keeps what it is told to show."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, text: str, **_: object) -> None:
        self.shown.append(text)


@contextmanager
def line_on(screen: Screen, *, terminal: bool) -> Iterator[RunningLine]:
    line = RunningLine(screen, terminal=terminal)
    line.open()
    try:
        yield line
    finally:
        line.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_line, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(running_line, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(running_line, "LOG_SECONDS", 0.1)
    monkeypatch.setenv("COLUMNS", "60")


@pytest.fixture
def _nothing_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SHARED", [])


def test_a_terminal_has_one_line_that_goes_when_anything_else_is_shown() -> None:
    screen = Screen()
    with line_on(screen, terminal=True) as line:
        line.begin(1, "Image | Build the image")
        wait_for(lambda: screen.shown)
        line.relabel(1, "Image | Build the image, attempt 2 of 9, and so on until there is no more room for it")
        line.relabel(2, "nothing of that key")
        line.begin(2, "Image | Another")
        wait_for(lambda: any("attempt 2" in text for text in screen.shown))
        screen.display("a warning")
        assert screen.shown[-2:] == [CLEAR, "a warning"]
        line.end(1)
        line.end(2)
        count = len(screen.shown)
        time.sleep(0.1)
        assert len(screen.shown) == count, "nothing is at work"
    assert screen.shown[0] == f"{CLEAR}… Image | Build the image, 0 s"
    assert all(len(text.removeprefix(CLEAR)) < 60 for text in screen.shown)
    assert screen.display == Screen.display.__get__(screen), "the display is as it was"
    assert "running-line" not in {thread.name for thread in threading.enumerate()}


def test_what_is_quick_is_not_told() -> None:
    screen = Screen()
    with line_on(screen, terminal=True) as line:
        for number in range(9):
            line.begin(number, "quick")
            line.end(number)
    assert screen.shown == []


def test_without_a_terminal_a_line_is_written_now_and_then() -> None:
    screen = Screen()
    with line_on(screen, terminal=False) as line:
        line.begin(1, "Schema | Migrate")
        line.begin(2, "Schema | Migrate")
        wait_for(lambda: len(screen.shown) > 1)
        began = time.monotonic()
        wait_for(lambda: len(screen.shown) > 3)
        assert time.monotonic() - began > 0.1, "each has the time that it is told of between it and the next"
    assert screen.shown[0] == "… Schema | Migrate and 1 more, 0 s so far"
    assert CLEAR not in "".join(screen.shown)


def test_the_line_is_not_drawn_by_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    with line_on(screen, terminal=True) as line:
        line.begin(1, "Api | Wait")
        wait_for(lambda: screen.shown)
        line.end(1)
        line._drawn = "drawn"
        monkeypatch.setattr(line, "_process", -1)
        screen.display("of a worker")
        assert screen.shown[-1] == "of a worker"
        assert line._drawn, "the line is the main process's"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 and later, beside a thread
def test_what_a_module_in_a_fork_reports_is_told_with_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setenv("COLUMNS", "100")
    with line_on(screen, terminal=True) as line:
        line.begin(1, "Api | Deploy the release")
        child = os.fork()
        if child == 0:
            report("2 of 3 replicas are new,\n\x1b[2J 1 available")
            os._exit(0)
        os.waitpid(child, 0)
        wait_for(lambda: any("available" in text for text in screen.shown))
        assert screen.shown[-1] == f"{CLEAR}… Api | Deploy the release, 0 s: 2 of 3 replicas are new, [2J 1 available"
        line.begin(2, "Api | Another")
        line.end(1)
        wait_for(lambda: "Another" in screen.shown[-1])
        assert "available" not in screen.shown[-1], "another task has another"
    assert reported() == ""


@pytest.mark.usefixtures("_nothing_shared")
def test_a_module_that_was_sent_reports_to_nobody() -> None:
    report("nobody reads it")
    assert reported() == ""


def test_a_long_report_is_cut() -> None:
    progress.share()
    report(f"{'é' * 300}")
    assert len(reported().encode()) == progress.BYTES
    report("")
    assert reported() == ""
