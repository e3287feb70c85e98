"""`python -m bench.kubernetes`: runs of the site on a cluster beside `kubectl apply` of the same objects, in turn.

Needs a cluster and an engine that builds for it (`make cluster`). Writes bench/results/kubernetes.md, which `make docs`
puts into bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.compose import seconds_in_words, timed
from tests.cluster import Cluster
from tests.end_to_end.switch.site import ROOT, KubernetesSite, new_site

RESULTS = Path(__file__).resolve().parent / "results" / "kubernetes.md"
GOALS = {"first": 90.0, "again": 15.0, "release": 45.0}
MOST_TIMES = 3.0  # what a run that changes nothing may take, in times of `kubectl apply` and Ansible's start together
# Nothing but a start: no host has anything to do.
EMPTY = "- hosts: titanic\n  gather_facts: false\n  tasks: []\n"
KEPT = ("name", "namespace", "labels", "annotations")


def manifests(site: KubernetesSite) -> str:
    """Everything that a run applies, as a list that kubectl takes: what is live, without what the cluster adds."""
    (stages,) = site.get("configmap", "titanic-stages")
    applied = [thing for things in stages["data"].values() for thing in json.loads(things)]
    keys = [(thing["apiVersion"], thing["kind"], thing["metadata"]["name"]) for thing in applied]
    keys += [("apps/v1", "Deployment", "titanic-api"), ("v1", "ConfigMap", f"titanic-api-{site.release()}")]
    items = []
    for api_version, kind, name in keys:
        (found,) = site.get(kind, name)
        metadata = {key: found["metadata"][key] for key in KEPT if key in found["metadata"]}
        items.append({**_own(found), "apiVersion": api_version, "kind": kind, "metadata": metadata})
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _own(thing: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in thing.items() if key != "status"}


def _applied(site: KubernetesSite, text: str) -> None:
    words = [
        "--namespace",
        site.namespace,
        "apply",
        "--server-side",
        "--force-conflicts",
    ]
    site.cluster(*words, "--field-manager=whitestar.deploy", "--filename", "-", text=text)


def _started(site: KubernetesSite, playbook: Path) -> None:
    command = [*site.command()[:1], str(playbook), *site.command()[2:]]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def measure(cluster: Cluster, rounds: int) -> str:
    """The report, in Markdown. Raises AssertionError when a run fails."""
    with new_site(cluster) as site:
        assert isinstance(site, KubernetesSite)
        empty = site.context.parent / "empty.yml"
        empty.write_text(EMPTY)
        site.succeed("--tags", "image")
        first = timed(site.succeed)
        again, alone, start, releases, backs = [], [], [], [], []
        for number in range(rounds):
            text = manifests(site)
            alone.append(timed(lambda text=text: _applied(site, text)))  # type: ignore[misc]
            start.append(timed(lambda: _started(site, empty)))
            again.append(timed(site.succeed))
            site.change_service(f"# {number}")
            releases.append(timed(site.succeed))
            backs.append(timed(lambda: site.succeed("--tags", "rollback")))
            site.succeed("--tags", "api")
    times = statistics.median(ours / (theirs + begin) for ours, theirs, begin in zip(again, alone, start, strict=True))
    rows = [
        ("first run, images present", f"{first:.1f} s", f"{GOALS['first']:g} s"),
        ("run that changes nothing", seconds_in_words(again), f"{GOALS['again']:g} s"),
        ("`kubectl apply --server-side` of the same objects", seconds_in_words(alone), "–"),
        ("a playbook without a task", seconds_in_words(start), "–"),
        ("what a run takes, in times of these two together", f"{times:.1f}x", f"{MOST_TIMES:g}x"),
        ("release of a changed source, with its build", seconds_in_words(releases), f"{GOALS['release']:g} s"),
        ("rollback", seconds_in_words(backs), "–"),
    ]
    lines = ["# The last committed run of the bench on Kubernetes", ""]
    lines += [f"Medians of {rounds} rounds (lowest–highest), in turn, on one machine with the cluster on it.", ""]
    lines += ["| Kubernetes | measured | goal |", "|---|--:|--:|"]
    return "\n".join([*lines, *(f"| {what} | {found} | {goal} |" for what, found, goal in rows)]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where there is no cluster."""
    parser = argparse.ArgumentParser(prog="python -m bench.kubernetes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    try:
        cluster = Cluster.found()
    except LookupError as reason:
        print(f"not measured: {reason}", file=sys.stderr)
        return 2
    report = measure(cluster, options.rounds)
    RESULTS.write_text(report)
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
