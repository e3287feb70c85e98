# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What local processes and containers have in common as colours: readiness asked over HTTP, drained by a file."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import make_directory
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import Answer, try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS, ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import readable
from ansible_collections.whitestar.deploy.plugins.module_utils.release.http_checks import Checks
from ansible_collections.whitestar.deploy.plugins.module_utils.release.smoke_test import (
    NO_ANALYSIS,
    Analysis,
    Traffic,
    Transcript,
    in_words,
    try_out,
)

# The reverse proxy asks each colour for its readiness this often; roles/titanic_api/templates/Caddyfile.j2 has the same
# figure. After three intervals it has certainly seen a change.
HEALTH_INTERVAL_SECONDS = 0.2
POLL_SECONDS = 0.05
LOG_LINES = 15
FAILURE_REPORT_LINES = 300
DATABASE_LINES = 50


class BlueGreen(ABC):
    """Two colours on one host, for one ``workload`` that is to serve; ``fingerprint`` tells its secrets' contents."""

    def __init__(
        self,
        state: State,
        workload: Mapping[str, Any],
        fingerprint: str,
        ready_seconds: float,
        drain_seconds: float,
        analysis: Analysis = NO_ANALYSIS,
    ) -> None:
        self.state = state
        self.workload = workload
        self.fingerprint = fingerprint
        self.ready_seconds = ready_seconds
        self.drain_seconds = drain_seconds
        self.analysis = analysis
        self.checks = Checks()
        self.transcript = Transcript()
        self.evidence: dict[str, str] = {}

    @abstractmethod
    def running(self, colour: str) -> bool:
        """Whether anything of this colour runs, ready or not."""

    @abstractmethod
    def facts(self, colour: str) -> dict[str, Any]:
        """What it was started with: release, fingerprint, at (seconds since 1970). Empty if never started."""

    @abstractmethod
    def addresses(self, colour: str) -> list[str]:
        """Where each of its replicas listens; fewer than the workload's replicas while some are not up."""

    @abstractmethod
    def ended(self, colour: str) -> str:
        """Why it will never get ready, in words; empty while it may."""

    @abstractmethod
    def last_output(self, colour: str, lines: int = LOG_LINES) -> str:
        """The last lines that it printed."""

    @abstractmethod
    def described(self, colour: str) -> str:
        """What the system says of its processes or containers, for the failure report of a failed release."""

    @abstractmethod
    def launch(self, colour: str) -> None:
        """Start the workload as this colour, which does not run."""

    @abstractmethod
    def halt(self, colour: str) -> None:
        """End it, giving it the drain time; nothing to do if it does not run."""

    def altered(self, colour: str) -> bool:  # noqa: ARG002 - of a process nothing is altered from outside
        """Whether somebody has given it other variables than it was started with."""
        return False

    def serving(self, colour: str) -> bool:
        """Whether the colour runs and every replica is ready."""
        return self.running(colour) and self._not_ready(colour) is None

    def in_charge(self) -> str | None:
        """The colour that should get requests now: running, not being drained, and ready rather than newly started.

        A run that was killed can leave a newer colour that never got ready; the older one has the requests then.
        """
        running = [colour for colour in COLOURS if self.running(colour) and not self.state.drain_file(colour).exists()]
        started = {colour: self.facts(colour).get("at", 0.0) for colour in running}
        return max(running, key=lambda colour: (self.serving(colour), started[colour]), default=None)

    def hold_nobody(self) -> None:
        """Take away what colours that have ended were held by."""
        for colour in COLOURS:
            self.state.drain_file(colour).unlink(missing_ok=True)

    def start(self, colour: str) -> None:
        """Start the workload as this colour; what an interrupted run left there may have requests and is drained."""
        if self.running(colour):
            self.drain(colour)
        self.halt(colour)
        # A container's account must be able to look into it, whatever our umask is.
        make_directory(self.state.drain_file(colour).parent, 0o755)
        # Held: what gets ready must not get requests before it has passed the smoke test.
        self.state.drain_file(colour).touch()
        self.launch(colour)

    def wait_until_ready(self, colour: str) -> None:
        """Wait until it would be ready if it were not held. Raises ReleaseError with the last words of the release."""
        deadline = time.monotonic() + self.ready_seconds
        while True:
            problem = self._not_ready(colour, but_held=True)
            if problem is None:
                return
            if end := self.ended(colour):
                raise ReleaseError(f"{end}; its last output:\n{readable(self.last_output(colour))}")
            if time.monotonic() > deadline:
                path = self.workload["probes"]["ready"]
                raise ReleaseError(
                    f"{path} did not answer 200 within {self.ready_seconds:g} s (last: {problem}); "
                    f"its last output:\n{readable(self.last_output(colour))}"
                )
            time.sleep(POLL_SECONDS)

    def try_out(self, colour: str) -> None:
        """Ask each replica for each smoke path and promise. Raises ReleaseError if it fails, is slow or breaks one."""
        paths = self.workload["probes"].get("smoke", [])
        try_out(
            self.addresses(colour), paths, self.checks.on_trial(), lambda: self.last_output(colour), self.transcript
        )

    def admit(self, colour: str) -> None:
        """Hold it no longer. Raises ReleaseError if it is not ready then."""
        self.state.drain_file(colour).unlink(missing_ok=True)
        deadline = time.monotonic() + self.ready_seconds
        while (problem := self._not_ready(colour)) is not None:
            if time.monotonic() > deadline:
                raise ReleaseError(f"it passed the smoke test, took over and is not ready: {problem}")
            time.sleep(POLL_SECONDS)

    def record_evidence(self, colour: str) -> None:
        """Keep its output, its readiness and what the system says of it, for the failure report."""
        with suppress(Exception):  # the failure itself counts, not one in telling of it
            self.evidence = {
                "last output": self.last_output(colour, FAILURE_REPORT_LINES),
                "readiness and answers, in order": str(self.transcript),
                "what the system says of it": self.described(colour),
            }

    def watch(self, colour: str) -> None:
        """Ask the reverse proxy for what it kept before, then compare the metrics until the analysis is over.

        Raises ReleaseError for a promise that is broken now, and when the metrics leave their bounds.
        """
        self.checks.require_kept()
        self.analysis.watch(
            lambda: Traffic.at(self.addresses(colour), self.workload["probes"]), lambda: self.ended(colour)
        )

    def drain(self, colour: str) -> None:
        """Make the colour unready, wait until the reverse proxy must have seen it."""
        self.state.drain_file(colour).touch()
        time.sleep(3 * HEALTH_INTERVAL_SECONDS)

    def stop(self, colour: str) -> None:
        """Stop the colour; gunicorn finishes what it has accepted within its graceful timeout."""
        self.halt(colour)
        self.state.drain_file(colour).unlink(missing_ok=True)

    def _not_ready(self, colour: str, *, but_held: bool = False) -> str | None:
        """What the first replica that is not ready says; None when all are, or only ``but_held``."""
        addresses = self.addresses(colour)
        if len(addresses) < self.replicas:
            return "no answer"
        for address in addresses:
            answer = try_request(address, self.workload["probes"]["ready"])
            self.transcript.record(f"{address} {self.workload['probes']['ready']} {in_words(answer)}")
            if answer is None or (answer.status != 200 and not (but_held and _only_held(answer))):
                return in_words(answer)
        return None

    @property
    def replicas(self) -> int:
        """How many of a colour there are when it serves."""
        return int(self.workload["replicas"])


def _only_held(answer: Answer) -> bool:
    """Whether a release that is not ready names its drain file as the only reason."""
    body = answer.json()
    faults = body.get("errors") if isinstance(body, dict) else None
    return isinstance(faults, list) and {str(fault.get("field")) for fault in faults} == {"traffic"}
