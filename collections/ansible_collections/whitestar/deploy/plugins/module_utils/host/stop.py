# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that runs on a host: told of, stopped so that it can be started as it was, started, or removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ansible_collections.whitestar.deploy.plugins.module_utils.host.blue_green import BlueGreen
from ansible_collections.whitestar.deploy.plugins.module_utils.host.fingerprint import fingerprint
from ansible_collections.whitestar.deploy.plugins.module_utils.host.runtime import Runtime, recorded_workload
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError, take_over
from ansible_collections.whitestar.deploy.plugins.module_utils.release.stopped import Stopped

GRACE_SECONDS = 25
# A reverse proxy that is given up only now has no time left for its own end.
SPARE_SECONDS = 5


class Parts(Protocol):
    """What runs on a host beside its colours; ``database`` says where that is, for people."""

    state: State
    host: Runtime
    database: str

    def listed(self) -> dict[str, str]:
        """Each in a few words, by name."""

    def backups(self) -> dict[str, str]:
        """The newest backup, the archive of WAL, the last drill and what is overdue, each in a few words."""

    def running(self) -> list[str]:
        """What runs, in the order in which it is stopped."""

    def stop(self, seconds: float) -> None:
        """Stop all of it, reverse proxy first, which answers what it has; the database when nobody can write."""

    def missing(self) -> list[str]:
        """What has to be started before the release, in order."""

    def serves(self) -> bool:
        """Whether a release runs, ready or not."""

    def start(self, name: str) -> None:
        """Start one of them as it was."""

    def remove(self) -> tuple[list[str], list[str]]:
        """Stop and remove what is ours: what was done, in words, and what of others is left."""


def stop(runs: Parts, by: str, seconds: float, *, check: bool) -> list[str]:
    """Stop everything, keep everything: what was done, in words; nothing where it was stopped before."""
    state = runs.state
    steps = [f"stop {name}" for name in runs.running()]
    known = state.stopped()
    if not check:
        # First, so that who finds it half stopped knows that somebody meant it.
        state.write_stopped(known or Stopped.now(by))
        runs.stop(seconds)
    return steps if known else [*steps, "record that it is stopped"]


def start(runs: Parts, options: Mapping[str, Any], *, check: bool) -> list[str]:
    """Start what does not run, the release of the ledger last: what was done, in words.

    Raises ReleaseError, OSError, and what the parts raise.
    """
    state = runs.state
    workload = recorded_workload(state, runs.host, state.ledger().current())
    secrets = fingerprint(state, list(workload["secret_files"].values()), check=check)
    colours = runs.host.colours(workload, secrets, options["ready_seconds"], options["drain_seconds"])
    missing = runs.missing()
    serves = colours.in_charge()
    steps = [f"start {name}" for name in missing] + ([] if serves else [f"start release {workload['release']}"])
    if not check:
        for name in missing:
            runs.start(name)
        if steps:
            serve(colours, serves)
        if left := runs.missing():
            raise ReleaseError(f"{', '.join(left)} ended at once. Its log says why.")
        state.forget_stopped()
    return steps


def serve(colours: BlueGreen, colour: str | None) -> None:
    """Have the release ready that runs as this colour; without one it is started. Raises ReleaseError."""
    if colour:
        colours.wait_until_ready(colour)
        return
    colours.hold_nobody()
    take_over(colours, None)
