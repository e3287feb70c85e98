# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notes are kept of what is there, and sizes are read as engines and people write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import NAME, edited, note
from ansible_collections.whitestar.deploy.plugins.module_utils.host.drift import size


def test_notes_are_kept_of_what_is_there(place: Path) -> None:
    for name in ("one", "two"):
        (place / name).write_text(name)
    note(place, {"one": b"one", "two": b"two"})
    assert list(edited(place)) == []
    written = (place / NAME).stat().st_mtime_ns
    note(place, {"one": b"one"})
    assert (place / NAME).stat().st_mtime_ns == written
    note(place, {"two": None})
    assert json.loads((place / NAME).read_text()).keys() == {"one"}


@pytest.mark.parametrize(
    ("text", "expected"), [("64m", 2**26), ("1g", 2**30), ("512k", 2**19), ("1.5gb", 1610612736), ("7", 7)]
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected
