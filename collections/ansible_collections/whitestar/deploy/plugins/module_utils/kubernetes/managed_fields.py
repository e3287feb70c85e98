# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has which fields of an object of Kubernetes, as its managedFields tell.

The keys of their trees are ``f:NAME`` for a field, ``k:{…}`` for the entry of a list with these fields, ``v:…`` for
the entry of a set, and ``.`` for the thing itself. A leaf is ``{}`` and stands for all that is below
(kubernetes.io/docs/reference/using-api/server-side-apply).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import Item, Path
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import MANAGER, Object

Tree = Mapping[str, Any]
Entry = Mapping[str, Any]
# What the cluster's own controllers write in every object, by design.
NOT_WANTED = ("f:metadata", "f:status")


def entries(thing: Object) -> list[Entry]:
    """Who has fields of it that tell what is wanted, the last one first."""
    found = [entry for entry in thing["metadata"].get("managedFields", []) if entry.get("subresource") != "status"]
    return sorted(found, key=lambda entry: str(entry.get("time", "")), reverse=True)


def others(thing: Object) -> list[Entry]:
    """The same without us."""
    return [entry for entry in entries(thing) if entry["manager"] != MANAGER]


def own(thing: Object) -> dict[str, Any]:
    """The fields that are ours, applied or written otherwise."""
    whole: dict[str, Any] = {}
    for entry in entries(thing):
        if entry["manager"] == MANAGER:
            whole = _united(whole, entry.get("fieldsV1", {}))
    return whole


def _united(one: Tree, other: Tree) -> dict[str, Any]:
    return {**one, **{key: _united(one.get(key, {}), below) for key, below in other.items()}}


def owner(thing: Object, path: Path) -> Entry | None:
    """Who has the field at a path, others before us; None if nobody has, as when it was removed."""
    having = [entry for entry in entries(thing) if _covers(entry.get("fieldsV1", {}), path)]
    return next((entry for entry in having if entry["manager"] != MANAGER), having[0] if having else None)


def _covers(tree: Tree | None, path: Path) -> bool:
    if tree is None:
        return False
    if not path or not tree:
        return True
    step = path[0]
    if isinstance(step, Item):
        below = next((tree[key] for key in tree if _is_entry(key, step.value)), None)
    else:
        below = tree.get(f"f:{step}")
    return _covers(below, path[1:])


def _is_entry(key: str, value: Any) -> bool:
    """Whether an entry of a list is the one that a key names."""
    if key.startswith("v:"):
        return bool(json.loads(key[2:]) == value)
    if not key.startswith("k:") or not isinstance(value, Mapping):
        return False
    return all(value.get(name, wanted) == wanted for name, wanted in json.loads(key[2:]).items())


def beside(tree: Tree, mine: Tree, live: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Fields of others, and what is there, in places where none is ours; of a whole that is theirs only the top."""
    for key, below in tree.items():
        if key == "." or (not path and key in NOT_WANTED):
            continue
        step, value = _descend(key, live)
        if key not in mine:
            yield (*path, step), value
        else:
            yield from beside(below, mine[key], value, (*path, step))


def shared(tree: Tree, mine: Tree, live: Any, path: Path = ()) -> Iterator[Path]:
    """Fields that are ours and somebody else's."""
    for key, below in tree.items():
        if key == "." or key not in mine or (not path and key in NOT_WANTED):
            continue
        step, value = _descend(key, live)
        if below and mine[key]:
            yield from shared(below, mine[key], value, (*path, step))
        else:
            yield (*path, step)


def _descend(key: str, live: Any) -> tuple[str | Item, Any]:
    """The step that a key stands for, and what is there."""
    kind, _, name = key.partition(":")
    if kind == "f":
        return name, live.get(name) if isinstance(live, Mapping) else None
    wanted = json.loads(name)
    value = next((item for item in live if _is_entry(key, item)), None) if isinstance(live, list) else None
    label = wanted.get("name") or "/".join(map(str, wanted.values())) if isinstance(wanted, Mapping) else str(wanted)
    return Item(str(label), value), value
