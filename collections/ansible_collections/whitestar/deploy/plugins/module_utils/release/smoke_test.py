# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smoke test of a release before it gets requests, and its analysis afterwards, on every kind of target."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import Answer, try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import readable
from ansible_collections.whitestar.deploy.plugins.module_utils.release.http_checks import ReverseProxy
from ansible_collections.whitestar.deploy.plugins.module_utils.release.http_checks import in_words as promise_in_words

# Names in the service's metrics.
METRICS = ("titanic_http_requests_total", "titanic_http_errors_total", "titanic_http_request_duration_seconds_sum")
FEWEST_REQUESTS = 20
WATCH_SECONDS = 0.5
# A release is asked for each of its smoke paths so often, and each answer may take so long, before it gets traffic.
TRIES = 3
SMOKE_SECONDS = 2.0
PAUSE_SECONDS = 0.5
FAILURE_REPORT_WIDTH = 400


@dataclass(frozen=True)
class Analysis:
    """How long a release is watched after it has taken over, and what it may do meanwhile.

    ``error_share`` is the share of requests that may be answered with 5xx (0 to 1), ``mean_seconds`` the mean time that
    an answer may take. Neither counts before there were 20 requests.
    """

    seconds: float = 0
    error_share: float = 0.02
    mean_seconds: float = 1.0

    def watch(self, traffic: Callable[[], Traffic], ended: Callable[[], str]) -> None:
        """Compare the ``traffic`` with the bounds until it is over. Raises ReleaseError when it leaves them.

        ``ended`` says why the release has ended, empty while it has not.
        """
        start = traffic()
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            time.sleep(WATCH_SECONDS)
            if end := ended():
                raise ReleaseError(f"under analysis: {end}")
            seen = traffic() - start
            if seen.requests < FEWEST_REQUESTS:
                continue
            share, mean = seen.errors / seen.requests, seen.seconds / seen.requests
            if share > self.error_share or mean > self.mean_seconds:
                raise ReleaseError(
                    f"under analysis: of {seen.requests:.0f} requests {seen.errors:.0f} failed, {mean:.3f} s in the "
                    f"mean (bounds: {self.error_share:.0%}, {self.mean_seconds:g} s)"
                )


@dataclass(frozen=True)
class Traffic:
    """What a release says that it has answered: requests, those with 5xx, seconds for all; probes left out."""

    requests: float = 0
    errors: float = 0
    seconds: float = 0

    def __sub__(self, earlier: Traffic) -> Traffic:
        """What came since."""
        return Traffic(self.requests - earlier.requests, self.errors - earlier.errors, self.seconds - earlier.seconds)

    @classmethod
    def at(cls, addresses: Iterable[str], probes: Mapping[str, Any]) -> Traffic:
        """What all replicas together have answered, by a workload's ``probes``; nothing where they name no metrics."""
        answers = [try_request(address, probes["metrics"]) for address in addresses if "metrics" in probes]
        return cls.of("\n".join(answer.body.decode(errors="replace") for answer in answers if answer), probes)

    @classmethod
    def of(cls, metrics: str, probes: Mapping[str, Any]) -> Traffic:
        """From metrics in Prometheus' exposition format 0.0.4, without what was asked for the ``probes``' own paths."""
        nobody = [*(probes.get(name) for name in ("alive", "ready", "metrics")), *probes.get("aliases", ())]
        sums = dict.fromkeys(METRICS, 0.0)
        for line in metrics.splitlines():
            name, _, rest = line.partition("{")
            labels, _, value = rest.rpartition("} ")
            if name in sums and not any(f'route="{route}"' in labels for route in nobody):
                sums[name] += float(value)
        return cls(*sums.values())


NO_ANALYSIS = Analysis()


class Transcript:
    """What a release answered, in order; a repetition is written down once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def record(self, text: str) -> None:
        """Write down an answer."""
        cut = text[:FAILURE_REPORT_WIDTH]
        if not self.lines or self.lines[-1].partition(" ")[2] != cut:
            self.lines.append(f"{datetime.now(UTC):%H:%M:%S.%f} {cut}")

    def __str__(self) -> str:
        return "\n".join(self.lines) or "(it was never asked)"


def try_out(
    addresses: Sequence[str],
    paths: Iterable[str],
    promises: Sequence[Mapping[str, Any]],
    output: Callable[[], str],
    transcript: Transcript,
) -> None:
    """Ask each replica for each path a few times, then for each promise.

    Raises ReleaseError for a failure, a slow answer and a broken promise.
    """
    wanted = list(paths)
    for address in [*addresses] * TRIES:
        for path in wanted:
            if failure := _smoke(address, path, transcript):
                raise ReleaseError(f"it got ready, but {path} {failure}; its last output:\n{readable(output())}")
    for address in addresses:
        for promise in promises:
            check_promise(ReverseProxy(address), promise, transcript)


def _smoke(address: str, path: str, transcript: Transcript) -> str:
    """Ask for a path: what is wrong with it, or empty. Slow or 503 is asked again: a machine has its pauses."""
    failure = ""
    for attempt in range(TRIES):
        time.sleep(attempt * PAUSE_SECONDS)
        began = time.monotonic()
        answer = try_request(address, path, SMOKE_SECONDS)
        transcript.record(f"{address} {path} {in_words(answer)}")
        if answer is not None and answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return ""
        failure = f"fails: {in_words(answer)}"
        if answer is None and time.monotonic() - began >= SMOKE_SECONDS:
            failure = f"took longer than {SMOKE_SECONDS:g} s"
        elif answer is None or answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
            break
    return failure


def check_promise(door: ReverseProxy, promise: Mapping[str, Any], transcript: Transcript) -> None:
    """Ask for a promise, a few times if it is broken: a machine has its pauses. Raises ReleaseError."""
    for attempt in range(TRIES):
        time.sleep(attempt * PAUSE_SECONDS)
        answer, broken = door.check(promise, SMOKE_SECONDS)
        if not broken:
            return
        transcript.record(f"{door.address} {promise['path']} {in_words(answer)}")
    raise ReleaseError(f"it got ready, but breaks a promise: {promise_in_words(promise, broken)}")


def in_words(answer: Answer | None) -> str:
    """An answer for people."""
    return "no answer" if answer is None else f"{answer.status} {answer.body[:300].decode(errors='replace')}"
