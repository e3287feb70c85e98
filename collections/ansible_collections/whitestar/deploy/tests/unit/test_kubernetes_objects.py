# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of an object reads as a line; what is planned is written down first, then handed on exactly as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import (
    STAGES,
    Change,
    Stage,
    difference,
    to_apply,
    to_remove,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import ClusterError, KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import MANAGER, with_managed_labels
from ansible_collections.whitestar.deploy.plugins.modules.kubernetes_objects import finish, plan, try_out


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


PLACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "place"}}


def server(size: str) -> dict[str, Any]:
    claim = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": size}}}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "server"}}, "volumeClaimTemplates": [claim]}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "server"}, "spec": spec}


class Kept:
    """A cluster that keeps objects, and notes what was done with them, in order."""

    namespace = "place"

    def __init__(self, *things: dict[str, Any], refuses: str = "", placeless: bool = False) -> None:
        self.things: dict[tuple[str, str], dict[str, Any]] = {}
        self.refuses = refuses
        self.placeless = placeless
        self.done: list[str] = []
        for thing in things:
            self.try_apply(thing)
        self.done.clear()

    def get(self, _api_version: str, kind: str, name: str) -> dict[str, Any] | None:
        return self.things.get((kind, name))

    def try_apply(self, wanted: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        name = str(wanted["metadata"]["name"])
        if self.placeless and wanted["kind"] != "Namespace":
            raise ClusterError("there is no namespace", 404)
        self.placeless = self.placeless and check
        if name == self.refuses:
            raise ClusterError("its lists do not go together", 422)
        made = wanted | {"metadata": wanted["metadata"] | {"managedFields": [{"manager": MANAGER}], "generation": 1}}
        if wanted["kind"] == "StatefulSet":
            made["status"] = {"observedGeneration": 1, "readyReplicas": 1}
        if not check:
            self.things[wanted["kind"], name] = made
            self.done.append(f"apply {name}")
        return made

    apply = try_apply

    def overwrite(self, wanted: dict[str, Any], refused: ClusterError, *, check: bool = False) -> dict[str, Any]:
        if wanted["metadata"]["name"] == "bad":
            raise refused
        if not check:
            self.done.append(f"overwrite {wanted['metadata']['name']}")
        return wanted

    def delete(self, _api_version: str, kind: str, name: str) -> None:
        del self.things[kind, name]
        self.done.append(f"delete {name}")

    def list(self, *_words: str, **_labels: str) -> list[dict[str, Any]]:
        return []

    def address(self, *words: str) -> str:
        return "/".join(words)

    def request(self, method: str, where: str, *_more: Any, **_query: str) -> None:
        self.done.append(f"{method} {where.rpartition('/')[2]}")
        del self.things["StatefulSet", "server"]

    @property
    def recorded(self) -> Sequence[str]:
        found = self.things["ConfigMap", STAGES]["data"]
        return [thing["metadata"]["name"] for thing in json.loads(found["unit"])]


def stage(cluster: Kept, *objects: dict[str, Any]) -> Stage:
    return Stage(cast("KubernetesClient", cluster), "unit", objects)


def kept(cluster: Kept, *objects: dict[str, Any]) -> None:
    """Have a stage as it is when it was applied."""
    wanted = stage(cluster, *objects)
    wanted.apply(wanted.changes(check=False))
    cluster.done.clear()


def test_a_change_reads_as_a_line() -> None:
    thing = config("c", a="1")
    assert str(Change(thing, {}, thing)) == "make ConfigMap c"
    assert str(Change(thing, thing, thing)) == "change ConfigMap c"
    assert str(Change(thing, thing, {})) == "remove ConfigMap c"
    assert not Change(thing, thing | {"status": 1}, thing).needed
    assert difference([]) == {"before": "", "after": ""}


def test_what_is_planned_is_handed_on_and_written_down_and_nothing_of_it_is_done() -> None:
    cluster = Kept()
    kept(cluster, config("old"), config("same"))
    answer = plan(stage(cluster, PLACE, config("same"), config("new", a="1")), check=False)
    assert answer["steps"] == ["make Namespace place", "make ConfigMap new", "remove ConfigMap old"]
    assert answer["apply"] == [with_managed_labels(config("new", a="1"))]
    assert answer["remove"] == [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "old"}}]
    assert (answer["changed"], answer["pending"]) == (True, True)
    assert cluster.done == ["apply place", f"apply {STAGES}"], "the namespace, for what is written down"
    assert cluster.recorded == ["place", "same", "new", "old"], "a run that is cut off now is found again"
    for thing in answer["apply"]:
        cluster.apply(thing)
    cluster.delete("v1", "ConfigMap", "old")
    assert finish(stage(cluster, PLACE, config("same"), config("new", a="1")), 1, check=False)["changed"] is False
    assert cluster.recorded == ["place", "same", "new"]


def test_what_lies_in_a_namespace_that_is_not_there_is_tried_once_it_is() -> None:
    wanted = [PLACE, config("first"), config("bad"), config("last")]
    cluster = Kept(placeless=True)
    steps = ["make Namespace place", "make ConfigMap first", "make ConfigMap bad", "make ConfigMap last"]
    assert plan(stage(cluster, *wanted), check=True)["steps"] == steps
    assert cluster.done == []
    answer = plan(stage(cluster, *wanted), check=False)
    assert answer["steps"] == steps
    assert [thing["metadata"]["name"] for thing in answer["apply"]] == ["first", "bad", "last"]
    cluster = Kept(placeless=True, refuses="bad")
    with pytest.raises(ClusterError, match="the cluster refuses ConfigMap bad: its lists do not go together"):
        plan(stage(cluster, *wanted), check=False)
    assert cluster.done == ["apply place", f"apply {STAGES}"]


def test_all_stages_are_tried_out_and_nothing_is_done() -> None:
    cluster = Kept(refuses="bad")
    cluster.things["Namespace", cluster.namespace] = PLACE
    assert try_out([stage(cluster, config("first")), stage(cluster, config("second"))])["changed"] is False
    with pytest.raises(ClusterError, match="the cluster refuses ConfigMap bad"):
        try_out([stage(cluster, config("first")), stage(cluster, config("bad"))])
    assert cluster.done == []


def test_a_check_hands_nothing_on() -> None:
    cluster = Kept()
    kept(cluster, config("old"))
    answer = plan(stage(cluster, config("new")), check=True)
    assert answer["steps"] == ["make ConfigMap new", "remove ConfigMap old"]
    assert (answer["apply"], answer["remove"], answer["pending"]) == ([], [], False)
    assert finish(stage(cluster, config("new")), 1, check=True) == {"changed": False, "steps": []}
    assert cluster.done == []


def test_where_nothing_differs_nothing_follows() -> None:
    cluster = Kept()
    kept(cluster, config("same"), server("1Gi"))
    answer = plan(stage(cluster, config("same"), server("1Gi")), check=False)
    assert (answer["changed"], answer["apply"], answer["remove"], answer["pending"]) == (False, [], [], False)
    assert cluster.done == []
    cluster.things["StatefulSet", "server"]["status"]["readyReplicas"] = 0
    answer = plan(stage(cluster, config("same"), server("1Gi")), check=False)
    assert (answer["changed"], answer["apply"], answer["pending"]) == (False, [], True), "its pod is waited for"


def test_a_record_that_a_cut_off_run_has_left_is_brought_to_what_is() -> None:
    cluster = Kept()
    kept(cluster, config("same"))
    plan(stage(cluster, config("same"), config("never")), check=False)
    assert cluster.recorded == ["same", "never"]
    assert plan(stage(cluster, config("same")), check=False)["changed"] is False
    assert cluster.recorded == ["same"]


def test_lists_that_others_made_longer_are_put_back_before_the_object_is_applied() -> None:
    cluster = Kept()
    kept(cluster, config("door"))
    cluster.refuses = "door"
    answer = plan(stage(cluster, config("door", a="1")), check=False)
    assert cluster.done == [f"apply {STAGES}", "overwrite door"]
    assert answer["apply"] == [with_managed_labels(config("door", a="1"))]


def test_a_server_with_other_volumes_is_made_anew_and_by_nobody_else() -> None:
    cluster = Kept()
    kept(cluster, server("1Gi"))
    answer = plan(stage(cluster, server("2Gi")), check=False)
    assert answer["steps"] == ["change StatefulSet server"]
    assert (answer["apply"], answer["pending"]) == ([], True)
    cluster.done.clear()
    assert finish(stage(cluster, server("2Gi")), 1, check=False)["changed"] is True
    assert cluster.done == ["DELETE server", "apply server"]


@pytest.mark.parametrize("kind", ["apply", "remove"])
def test_what_is_handed_on_keeps_its_order(kind: str) -> None:
    names = ["b", "a", "c"]
    changes = [Change(config(name), {}, config(name) if kind == "apply" else {}) for name in names]
    found = to_apply(changes) if kind == "apply" else to_remove(changes)
    assert [thing["metadata"]["name"] for thing in found] == names
