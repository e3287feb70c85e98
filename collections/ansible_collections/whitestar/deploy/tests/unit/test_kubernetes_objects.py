# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of an object reads as a line."""

from __future__ import annotations

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import (
    Change,
    difference,
)


def test_a_change_reads_as_a_line() -> None:
    thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    assert str(Change(thing, {}, thing)) == "make ConfigMap c"
    assert str(Change(thing, thing, thing)) == "change ConfigMap c"
    assert str(Change(thing, thing, {})) == "remove ConfigMap c"
    assert not Change(thing, thing | {"status": 1}, thing).needed
    assert difference([]) == {"before": "", "after": ""}
