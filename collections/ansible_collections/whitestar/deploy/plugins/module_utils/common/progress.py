# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module is at, for people who wait: a line in memory that it shares with the process that forks it.

A module that is sent to another machine shares nothing, and reports to nobody.
"""

from __future__ import annotations

import mmap

BYTES = 240
# The one line, once the process that forks has made it.
_SHARED: list[mmap.mmap] = []


def share() -> None:
    """Make the line, before the first module is forked."""
    if not _SHARED:
        _SHARED.append(mmap.mmap(-1, BYTES))


def report(text: str) -> None:
    """Say what is done now; the newest line counts."""
    line = "".join(character for character in " ".join(text.split()) if character.isprintable())
    for shared in _SHARED:
        shared[:BYTES] = line.encode()[:BYTES].ljust(BYTES, b"\0")


def reported() -> str:
    """The newest line; empty if there is none."""
    return b"".join(shared[:BYTES] for shared in _SHARED).rstrip(b"\0").decode(errors="replace")
