# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switch from one release to the next without a dropped request, for every target that has two colours."""

from __future__ import annotations

from typing import Protocol

from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report

COLOURS = ("blue", "green")


class ReleaseError(RuntimeError):
    """The new release did not become ready; the old one has not been touched. The message says why."""


class Colours(Protocol):
    """What a target must be able to do with its two colours. Both are always upstreams of the reverse proxy."""

    def serving(self, colour: str) -> bool:
        """Whether the colour runs and is ready."""

    def start(self, colour: str) -> None:
        """Start the new release as this colour, replacing whatever was left there; it is held, so unready."""

    def wait_until_ready(self, colour: str) -> None:
        """Return once it is ready but for being held. Raises ReleaseError when it ends, or is not ready in time."""

    def try_out(self, colour: str) -> None:
        """Ask it for what users will ask. Raises ReleaseError if it fails or is slow; nobody else has asked it yet."""

    def admit(self, colour: str) -> None:
        """Hold it no longer, and return once it is ready."""

    def record_evidence(self, colour: str) -> None:
        """Keep what tells why it failed, before it is stopped. Never raises."""

    def drain(self, colour: str) -> None:
        """Make it unready, and return once the reverse proxy sends it nothing more and it has answered what it had."""

    def watch(self, colour: str) -> None:
        """Return once its analysis is over. Raises ReleaseError when it errs or is slow more often than it may."""

    def stop(self, colour: str) -> None:
        """Stop it; nothing to do if it does not run."""


def other(colour: str) -> str:
    """The other colour."""
    return COLOURS[1 - COLOURS.index(colour)]


def take_over(colours: Colours, serving: str | None) -> None:
    """Switch, and take away a colour that has ended: nobody is to start it again beside this. Raises ReleaseError."""
    idle = switch(colours, serving)
    if serving is None:
        colours.stop(other(idle))


def switch(colours: Colours, serving: str | None) -> str:
    """Make the new release serve, and return its colour. ``serving`` is the colour that serves now, if any.

    Order matters. The new colour is started, ready and past the smoke test before the reverse proxy may send it
    anything, and serves before the old one is drained. The old one is drained *by its readiness* before it is stopped,
    because gunicorn drops what waits in its accept queue at SIGTERM. While the new one is under analysis the old one
    waits, drained, and gets requests again when the new one fails. Raises ReleaseError, with the new colour stopped
    again and the old one as it was.
    """
    idle = other(serving) if serving else COLOURS[0]
    try:
        report("start the release")
        colours.start(idle)
        report("wait until the release is ready")
        colours.wait_until_ready(idle)
        report("run the smoke test")
        colours.try_out(idle)
        colours.admit(idle)
    except BaseException:
        colours.record_evidence(idle)
        colours.stop(idle)
        raise
    if serving:
        report("drain the release that served before")
        colours.drain(serving)
        try:
            report("watch the release under analysis")
            colours.watch(idle)
        except ReleaseError:
            # The old one still runs and has only to get requests again.
            colours.admit(serving)
            colours.drain(idle)
            colours.record_evidence(idle)
            colours.stop(idle)
            raise
        report("stop the release that served before")
        colours.stop(serving)
    return idle
