# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A line that says what a run is at while that takes long: redrawn on a terminal, a new one now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report, reported, share

# What takes no longer needs no line.
QUIET_SECONDS = 2.0
# How often a line is written where none can be redrawn: in a log.
LOG_SECONDS = 30.0
TICK_SECONDS = 0.5
CLEAR = "\r\x1b[K"


@contextmanager
def unheard() -> Iterator[None]:
    """Have what is written be seen at once; where whoever read has gone, as ``head`` does, the rest goes nowhere."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class RunningLine:
    """What is at work, by a key of the caller's, and the thread that tells of it.

    All is written by the display, whose lock also keeps a worker from being forked meanwhile. On a terminal the line
    is cleared before the display shows anything else, until :meth:`close`.
    """

    def __init__(self, display: Any, *, terminal: bool) -> None:
        self._terminal = terminal
        self._display = display
        self._show = display.display
        self._process = os.getpid()
        # Key -> when it began and what it is.
        self._work: dict[object, tuple[float, str]] = {}
        self._told = 0.0
        # What the line says; empty while there is none.
        self._drawn = ""
        self._lock = threading.Lock()
        self._over = threading.Event()
        # No daemon: one that writes while the interpreter ends would bring it down.
        self._thread = threading.Thread(target=self._tell, name="running-line")

    def open(self) -> None:
        """Begin to look."""
        share()
        if self._terminal:
            self._display.display = self._show_cleared
        self._thread.start()

    def close(self) -> None:
        """Leave nothing behind: no line, no thread, the display as it was."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self.clear()
        if self._terminal:
            self._display.display = self._show

    def begin(self, key: object, label: str) -> None:
        """Something has begun, whose module has reported nothing yet."""
        report("")
        with self._lock:
            self._work[key] = (time.monotonic(), label)

    def relabel(self, key: object, label: str) -> None:
        """Say something else of what has begun."""
        with self._lock:
            if key in self._work:
                self._work[key] = (self._work[key][0], label)

    def end(self, key: object) -> None:
        """It has ended."""
        with self._lock:
            self._work.pop(key, None)
        self.clear()

    def clear(self) -> None:
        """Take the line away, if there is one."""
        with self._lock:
            self._draw("")

    def _show_cleared(self, *arguments: Any, **named: Any) -> None:
        """The display's own method, in whose worker processes there is no line of ours."""
        if os.getpid() == self._process:
            self.clear()
        self._show(*arguments, **named)

    def _tell(self) -> None:
        # The main thread may end without another word, by an error of the run.
        while not self._over.wait(TICK_SECONDS) and threading.main_thread().is_alive():
            with self._lock:
                if self._work:
                    self._look()

    def _look(self) -> None:
        """Tell of what has been at work for longest."""
        began, label = min(self._work.values())
        seconds = time.monotonic() - began
        more = f" and {len(self._work) - 1} more" if len(self._work) > 1 else ""
        # Of several, nobody knows which one has reported.
        newest = f": {text}" if not more and (text := reported()) else ""
        if self._terminal:
            if seconds > QUIET_SECONDS:
                width = shutil.get_terminal_size().columns - 1
                self._draw(f"… {label}{more}, {seconds:.0f} s{newest}"[:width])
        elif time.monotonic() - max(began, self._told) >= LOG_SECONDS:
            self._told = time.monotonic()
            with unheard():
                self._show(f"… {label}{more}, {seconds:.0f} s so far{newest}")

    def _draw(self, text: str) -> None:
        if text != self._drawn:
            self._show(f"{CLEAR}{text}", screen_only=True, newline=False)
            sys.stdout.flush()
            self._drawn = text
