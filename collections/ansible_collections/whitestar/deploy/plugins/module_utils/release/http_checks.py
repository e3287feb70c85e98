# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service must answer: asked of a release before it gets requests, and of the reverse proxy before and after."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import Answer, Tls, request
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import ReleaseError

MAINTENANCE = "urn:titanic:problem:maintenance"
# A reverse proxy may not have seen yet that a release is ready, or that the one before is gone.
SEEN_WITHIN_SECONDS = 30
POLL_SECONDS = 0.2
# So often in a row the new release has to answer before it is asked for the rest. An ingress controller may know an old
# pod for a moment longer; as one of two, that pod would pass for the new release once in a thousand times.
IN_A_ROW = 10


def release_promises(wanted: Iterable[Mapping[str, Any]], release: str) -> list[dict[str, Any]]:
    """Promises as the module http_checks takes them, in full and for this release: it is put for ``{release}``.

    Without a release's name what needs it is not promised.
    """
    defaults: dict[str, Any] = {"request_headers": {}, "status": 200, "headers": {}, "json": {}}
    found = [defaults | dict(promise) for promise in wanted]
    for promise in found:
        values = {key: release if value == "{release}" else value for key, value in promise["json"].items()}
        promise["json"] = {key: value for key, value in values.items() if value != ""}
    return found


@dataclass(frozen=True)
class ReverseProxy:
    """Where the service is asked: ``address`` as of :func:`request`, under the name ``host`` if that is not empty."""

    address: str
    host: str = ""
    tls: Tls | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ReverseProxy:
        """From a module's options of these names."""
        return cls(options["address"], options["host"] or "", Tls.of(options["tls"]))

    def check(self, promise: Mapping[str, Any], seconds: float = 5) -> tuple[Answer | None, str]:
        """The answer, None if there is none, and what differs from the promise; nothing if it is kept."""
        headers = promise["request_headers"] | ({"Host": self.host} if self.host else {})
        seconds = promise.get("seconds") or seconds
        try:
            answer = request(self.address, promise["path"], headers=headers, seconds=seconds, tls=self.tls)
        except (OSError, http.client.HTTPException) as error:
            return None, f"no answer from {self.address} ({error})"
        return answer, difference(promise, answer)

    def kept(self, wanted: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Which of these promises are kept now; none if there is no answer."""
        found: list[Mapping[str, Any]] = []
        for promise in wanted:
            answer, broken = self.check(promise)
            if answer is None:
                return []
            found += [] if broken else [promise]
        return found

    def require(self, wanted: Iterable[Mapping[str, Any]], times: int = 1) -> None:
        """Return once these are kept, each so many times in a row. Raises ReleaseError for one that stays broken."""
        deadline = time.monotonic() + SEEN_WITHIN_SECONDS
        for promise in wanted:
            kept = 0
            while kept < times:
                answer, broken = self.check(promise)
                if not broken:
                    kept += 1
                    continue
                kept = 0
                if answer and maintenance(answer):
                    return
                if time.monotonic() > deadline:
                    raise ReleaseError(f"it took over, and breaks a promise: {in_words(promise, broken)}")
                time.sleep(POLL_SECONDS)


@dataclass
class Checks:
    """What a new release promises, asked before it gets requests and, of what was ``kept`` before, afterwards.

    ``named`` are promises that only this ``release`` keeps, of those that another one answered before. In the smoke
    test no release keeps what is asked at the path ``ready``, since it is held unready.
    """

    promises: Sequence[Mapping[str, Any]] = ()
    reverse_proxy: ReverseProxy | None = None
    release: str = ""
    ready: str = ""
    kept: Sequence[Mapping[str, Any]] = ()
    named: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, workload: Mapping[str, Any], reverse_proxy: Mapping[str, Any] | None) -> Checks:
        """For a release, with a module's ``reverse_proxy`` option; the reverse proxy is not asked without one."""
        door = ReverseProxy.of(reverse_proxy) if reverse_proxy else None
        probes = workload["probes"]
        return cls(probes.get("promises", []), door, workload["release"], probes["ready"])

    def on_trial(self) -> list[Mapping[str, Any]]:
        """What a release can be asked before it gets requests."""
        return [promise for promise in self.promises if promise["path"] != self.ready]

    def look(self) -> None:
        """Note what is kept while the release before serves: what is broken then is no fault of the new one."""
        if self.reverse_proxy:
            self.kept = self.reverse_proxy.kept(self.promises)
            named = [promise for promise in self.promises if self.release in promise["json"].values()]
            self.named = [promise for promise in named if self.reverse_proxy.kept([{**promise, "json": {}}])]

    def require_kept(self) -> None:
        """Return once the reverse proxy keeps what it kept before. Raises ReleaseError for what stays broken."""
        if self.reverse_proxy:
            # What an old pod answers that is on its way out says nothing of the new one.
            self.reverse_proxy.require(self.named, IN_A_ROW)
            self.reverse_proxy.require(self.kept)


def difference(promise: Mapping[str, Any], answer: Answer) -> str:
    """What differs from the promise; empty if it is kept."""
    if promise.get("or_problem") and _is(answer, promise["or_problem"]):
        return ""
    if answer.status != promise["status"]:
        return f"status is {answer.status}, not {promise['status']}: {answer.body[:200].decode(errors='replace')}"
    for name, start in promise["headers"].items():
        found = answer.headers.get(name.lower())
        if found is None or not found.startswith(str(start)):
            return f"header {name} is {found!r}, it must start with {start!r}"
    body = answer.json() if promise["json"] else {}
    for key, value in promise["json"].items():
        if not isinstance(body, dict) or body.get(key) != value:
            return f"{key} is {body.get(key) if isinstance(body, dict) else body!r}, not {value!r}"
    return ""


def _is(answer: Answer, problem: str) -> bool:
    """Whether it is a problem document of this type."""
    body = answer.json() if answer.status >= HTTPStatus.BAD_REQUEST else None
    return isinstance(body, dict) and body.get("type") == problem


def maintenance(answer: Answer) -> str:
    """The message of a reverse proxy in maintenance; empty for any other answer."""
    body = answer.json() if answer.status == 503 else None
    return str(body.get("detail")) if isinstance(body, dict) and body.get("type") == MAINTENANCE else ""


def in_words(promise: Mapping[str, Any], broken: str) -> str:
    """A broken promise for people."""
    return f"{promise['name']}: GET {promise['path']}: {broken}"
