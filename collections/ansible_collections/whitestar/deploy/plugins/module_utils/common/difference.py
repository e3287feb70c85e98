# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs from what was applied: by path, with both values, and with who and when as far as anybody knows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
# A value is shown up to here; what is longer is cut.
SHOWN = 300


class Item(NamedTuple):
    """A step of a path into a list: how the entry is called, and the entry."""

    label: str
    value: Any


Path = tuple["str | Item", ...]


@dataclass(frozen=True)
class Difference:
    """Something that is not as it was applied. ``said`` takes the place of values that may not be told or are none.

    ``by`` and ``at`` are empty where nothing knows who or when.
    """

    what: str
    path: str = ""
    applied: Any = None
    live: Any = None
    said: str = ""
    by: str = ""
    at: str = ""

    def __str__(self) -> str:
        who = " ".join([*([f"by {self.by}"] if self.by else []), *([f"at {self.at}"] if self.at else [])])
        return f"{self.what}: {f'{self.path}: ' if self.path else ''}{self.change}{f' ({who})' if who else ''}"

    @property
    def change(self) -> str:
        """What has become of it, in words."""
        if self.said:
            return self.said
        if self.applied is None:
            return f"added: {shown(self.live)}"
        if self.live is None:
            return f"removed, was {shown(self.applied)}"
        return f"{shown(self.applied)} was applied, is {shown(self.live)}"


def shown(value: Any) -> str:
    """A value for people, in one line."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def in_words(path: Path) -> str:
    """``spec.template.spec.containers[api].image``; what is no plain word stands quoted in brackets."""
    text = ""
    for step in path:
        if isinstance(step, Item):
            text += f"[{step.label}]"
        elif PLAIN_KEY.fullmatch(step):
            text += f"{'.' if text else ''}{step}"
        else:
            text += f'["{step}"]'
    return text


def compared(applied: Any, live: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Where two values differ, and both there; None where there is none. Lists of named things go by their names."""
    if applied == live:
        return
    if isinstance(applied, Mapping) and isinstance(live, Mapping):
        for key in sorted({*applied, *live}):
            yield from compared(applied.get(key), live.get(key), (*path, key))
    elif (both := _paired(applied, live)) is not None:
        for label, left, right in both:
            yield from compared(left, right, (*path, Item(label, left if right is None else right)))
    else:
        yield path, applied, live


def _paired(applied: Any, live: Any) -> list[tuple[str, Any, Any]] | None:
    """The entries of two lists that belong together; None if that cannot be told."""
    if not (isinstance(applied, list) and isinstance(live, list)):
        return None
    left, right = _by_name(applied), _by_name(live)
    if left is not None and right is not None:
        return [(name, left.get(name), right.get(name)) for name in {**left, **right}]
    if len(applied) == len(live):
        return [(str(place), *pair) for place, pair in enumerate(zip(applied, live, strict=True))]
    return None


def _by_name(things: Sequence[Any]) -> dict[str, Any] | None:
    """The entries of a list by their names; None if they have none, or not each its own."""
    if not all(isinstance(thing, Mapping) and isinstance(thing.get("name"), str) for thing in things):
        return None
    found = {thing["name"]: thing for thing in things}
    return found if found and len(found) == len(things) else None


def value_at(thing: Any, path: Path) -> Any:
    """What a thing has at a path; None if it has nothing there."""
    for step in path:
        if isinstance(step, Item):
            named = _by_name(thing) if isinstance(thing, list) else None
            thing = (named or {}).get(step.label)
        else:
            thing = thing.get(step) if isinstance(thing, Mapping) else None
    return thing
