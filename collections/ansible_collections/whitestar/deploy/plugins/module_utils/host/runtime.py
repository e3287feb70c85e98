# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every kind of host can do with releases, so that ledger, switch and rollback are the same code on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ansible_collections.whitestar.deploy.plugins.module_utils.host.blue_green import BlueGreen
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Entry


class Runtime(Protocol):
    """How releases run on a host. An image is a release directory, or what a reference by digest names."""

    def missing(self, image: str, command: Sequence[str]) -> str:
        """What is missing to run this command of an image; empty if nothing is."""

    def execute(
        self,
        image: str,
        command: Sequence[str],
        environment: Mapping[str, Any],
        secret_files: Mapping[str, str],
        seconds: float,
    ) -> tuple[int, Any, str]:
        """Run a command of an image to its end: (exit code, JSON answer or None, standard error).

        Raises subprocess.TimeoutExpired and OSError.
        """

    def colours(self, workload: Mapping[str, Any], fingerprint: str, *limits: Any) -> BlueGreen:
        """The two colours, for this workload; ``limits`` are those of :class:`BlueGreen`."""

    def has_image(self, reference: str) -> bool:
        """Whether the image is on the host."""

    def discard_image(self, identity: str) -> None:
        """Remove the image of this identity, which nothing needs."""

    def restore_point(self) -> dict[str, Any]:
        """Mark this moment in the database's WAL, as an event of the ledger; empty where there are no backups."""

    def database_output(self) -> str:
        """The last lines that the database printed, as far as they can be had. Never raises."""


def recorded_workload(state: State, host: Runtime, entry: Entry | None) -> dict[str, Any]:
    """The workload that a ledger entry served with. Raises ReleaseError if it or its image has been removed."""
    found = state.workload(entry.release) if entry else {}
    if not found or not host.has_image(found["image"]):
        name = entry.release if entry else "of an unknown entry"
        raise ReleaseError(f"release {name} is recorded, but its image or workload is gone. Choose another release.")
    return found
