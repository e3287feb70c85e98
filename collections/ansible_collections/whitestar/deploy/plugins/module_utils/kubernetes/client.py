# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Kubernetes target: one namespace of one cluster, asked over the cluster's own API by way of ``kubectl proxy``.

kubectl knows every kind of credential, and starting it once a task costs what one of its commands costs. The socket
that it listens on lies in a directory that nobody else may enter.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import quote, urlencode

from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import Answer, request
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import MANAGER, Object

# The first in which a container's preStop may be a sleep without a feature gate (release notes of 1.30).
OLDEST = (1, 30)
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
POLL_SECONDS = 0.02
# An API that somebody else's server gives (metrics) is away while that starts again, and a new kind for a moment.
BUSY_SECONDS = 8.0
BUSY_POLL_SECONDS = 0.5
START_SECONDS = 20
ANSWER_SECONDS = 30
FORWARDED = re.compile(r"from 127\.0\.0\.1:(\d+)")


class ClusterError(RuntimeError):
    """The cluster does not answer, or refused; ``status`` is that of HTTP, 0 if there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class KubernetesClient:
    """A namespace of a cluster, to be used as a context: within it questions can be asked.

    ``calls`` counts what the API was asked.
    """

    OPTION: ClassVar[dict[str, Any]] = {
        "type": "dict",
        "options": {
            "kubectl": {"type": "str", "default": "kubectl"},
            "kubeconfig": {"type": "path"},
            "context": {"type": "str"},
            "namespace": {"type": "str", "required": True},
        },
    }
    namespace: str
    kubectl: str = "kubectl"
    kubeconfig: str = ""
    context: str = ""
    calls: int = 0
    _proxy: subprocess.Popen[str] | None = None
    _directory: str = ""
    _resources: dict[str, dict[str, tuple[str, bool]]] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> KubernetesClient:
        """From a module's ``cluster`` option."""
        return cls(**{key: value for key, value in options.items() if value})

    def __enter__(self) -> Self:
        """Raises ClusterError if there is no kubectl, or it finds no credentials."""
        self._directory = tempfile.mkdtemp(prefix="titanic-")
        try:
            self._proxy = self.start("proxy", f"--unix-socket={self._socket}")
            self._wait_for(self._proxy)
        except BaseException:
            self.close()
            raise
        return self

    def _wait_for(self, proxy: subprocess.Popen[str]) -> None:
        """Return once it listens. Raises ClusterError with its words if it does not."""
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if proxy.poll() is not None or time.monotonic() > deadline:
                proxy.kill()
                said = " ".join(proxy.communicate()[1].split()).removeprefix("error: ")
                raise ClusterError(f"kubectl cannot talk to the cluster: {said or 'it does not start'}")
            time.sleep(POLL_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the proxy."""
        self.close()

    def close(self) -> None:
        """End what was started."""
        if self._proxy:
            _end(self._proxy)
            self._proxy = None
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _socket(self) -> Path:
        return Path(self._directory) / "socket"

    def _listens(self) -> bool:
        """Whether the proxy takes connections: its socket is there a moment before it does."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def words(self, *arguments: str) -> list[str]:
        """A command line of kubectl for this namespace."""
        own = {"--kubeconfig": self.kubeconfig, "--context": self.context, "--namespace": self.namespace}
        return [self.kubectl, *(f"{name}={value}" for name, value in own.items() if value), *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of kubectl that goes on until it is ended. Raises ClusterError if there is no kubectl."""
        try:
            return subprocess.Popen(
                self.words(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise ClusterError(f"the program {self.kubectl} cannot be run ({error.strerror})") from error

    def run(self, *arguments: str, standard_input: str = "", seconds: float = 60) -> str:
        """Run a command of kubectl: its standard output. Raises ClusterError with its words."""
        try:
            done = subprocess.run(
                self.words(*arguments),
                input=standard_input,
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"kubectl {' '.join(arguments[:3])} took longer than {seconds:g} s") from error
        except OSError as error:
            raise ClusterError(f"the program {self.kubectl} cannot be run ({error.strerror})") from error
        if done.returncode:
            words = " ".join((done.stderr or done.stdout).split())
            raise ClusterError(f"kubectl {' '.join(arguments[:3])} failed ({done.returncode}): {words[-1500:]}")
        return done.stdout

    @contextmanager
    def forwarded(self, pod: str, port: int) -> Iterator[str]:
        """Where a port of a pod can be reached from here (``127.0.0.1:12345``); no network policy is in the way.

        Raises ClusterError.
        """
        forward = self.start("port-forward", f"pod/{pod}", f":{port}", "--address=127.0.0.1")
        try:
            line = forward.stdout.readline() if forward.stdout else ""
            found = FORWARDED.search(line)
            if not found:
                forward.kill()
                said = " ".join(forward.communicate()[1].split())
                raise ClusterError(f"port {port} of pod {pod} cannot be reached: {said or line}")
            yield f"127.0.0.1:{found[1]}"
        finally:
            _end(forward)

    def request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json", **query: str
    ) -> dict[str, Any] | None:
        """What the API answers; None where there is no such thing. Raises ClusterError."""
        answer = self._answer(method, path, body, kind, query)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        found = answer.json()
        _refused(answer)
        return found if isinstance(found, dict) else {}

    def _answer(self, method: str, path: str, body: Any, kind: str, query: Mapping[str, str]) -> Answer:
        """Its answer, asked again for a while where a cluster says that it is busy and has done nothing."""
        self.calls += 1
        content = None if body is None else json.dumps(body).encode()
        where = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": "application/json", "Content-Type": kind}
        again = {HTTPStatus.TOO_MANY_REQUESTS} | ({HTTPStatus.SERVICE_UNAVAILABLE} if method == "GET" else set())
        deadline = time.monotonic() + BUSY_SECONDS
        try:
            while True:
                answer = request(
                    f"unix:{self._socket}", where, method=method, headers=headers, body=content, seconds=ANSWER_SECONDS
                )
                if answer.status not in again or time.monotonic() > deadline:
                    return answer
                time.sleep(BUSY_POLL_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(f"the cluster does not answer ({error})") from error

    def text(self, path: str, **query: str) -> str:
        """What the API answers in plain text. Raises ClusterError."""
        answer = self._answer("GET", path, None, "application/json", query)
        _refused(answer)
        return answer.body.decode(errors="replace")

    def version(self) -> str:
        """Its version, such as ``v1.36.3``."""
        return str((self.request("GET", "/version") or {}).get("gitVersion", "unknown"))

    def knows(self, api_version: str, kind: str) -> bool:
        """Whether there are objects of this kind."""
        return kind in self._kinds(api_version)

    def _kinds(self, api_version: str) -> dict[str, tuple[str, bool]]:
        """The kinds of a group and version: their names in addresses, and whether they lie in namespaces."""
        if api_version not in self._resources:
            found = self.request("GET", _group(api_version)) or {}
            self._resources[api_version] = {
                str(entry["kind"]): (str(entry["name"]), bool(entry["namespaced"]))
                for entry in found.get("resources", [])
                if "/" not in entry["name"]
            }
        return self._resources[api_version]

    def address(self, api_version: str, kind: str, name: str = "", part: str = "") -> str:
        """Where objects of a kind are, or one of them. Raises ClusterError for a kind that is not known there."""
        kinds = self._kinds(api_version)
        if kind not in kinds:
            raise ClusterError(
                f"the cluster knows no {kind} of {api_version}. Install what defines it, or leave it out."
            )
        plural, namespaced = kinds[kind]
        place = f"/namespaces/{self.namespace}" if namespaced else ""
        parts = [quote(word) for word in (plural, name, part) if word]
        return f"{_group(api_version)}{place}/{'/'.join(parts)}"

    def get(self, api_version: str, kind: str, name: str) -> Object | None:
        """An object; None where there is none."""
        return self.request("GET", self.address(api_version, kind, name))

    def list(self, api_version: str, kind: str, **labels: str) -> list[Object]:
        """The objects of a kind with these labels (``{"app.kubernetes.io/name": …}``)."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        found = self.request(
            "GET", self.address(api_version, kind), **({"labelSelector": selector} if selector else {})
        )
        # What is listed does not say what it is.
        return [{"apiVersion": api_version, "kind": kind, **item} for item in (found or {}).get("items", [])]

    def apply(self, wanted: Object, *, check: bool = False) -> Object:
        """Have an object be as it is wanted, or learn what it would be: server-side apply. Raises ClusterError."""
        try:
            return self.try_apply(wanted, check=check)
        except ClusterError as error:
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            found = self.overwrite(wanted, error, check=check)
        return found if check else self.try_apply(wanted)

    def try_apply(self, wanted: Object, *, check: bool = False) -> Object:
        """The same, refused where lists that others have made longer do not go together with ours (status 422)."""
        query = {"fieldManager": MANAGER} | ({"dryRun": "All"} if check else {})
        found = self.request("PATCH", self._where(wanted), wanted, APPLY, force="true", **query)
        if found is None:
            raise ClusterError(f"there is no namespace {self.namespace}", HTTPStatus.NOT_FOUND)
        return found

    def overwrite(self, wanted: Object, refused: ClusterError, *, check: bool = False) -> Object:
        """The object with our lists in the place of what somebody has made of them. Raises ``refused`` if it fails.

        Server-side apply leaves the entries of others beside ours, such as the port of a Service that was changed by
        hand. The two may exclude each other.
        """
        query = {"fieldManager": MANAGER} | ({"dryRun": "All"} if check else {})
        try:
            found = self.request("PATCH", self._where(wanted), wanted, MERGE, **query)
        except ClusterError:
            raise refused from None
        if found is None:
            raise refused
        return found

    def _where(self, wanted: Object) -> str:
        return self.address(wanted["apiVersion"], wanted["kind"], wanted["metadata"]["name"])

    def create(self, wanted: Object) -> Object:
        """Make an object that is not there. Raises ClusterError, with status 409 if it is."""
        found = self.request("POST", self.address(wanted["apiVersion"], wanted["kind"]), wanted, fieldManager=MANAGER)
        if found is None:
            raise ClusterError(f"there is no namespace {self.namespace}", HTTPStatus.NOT_FOUND)
        return found

    def replace(self, wanted: Object) -> Object:
        """Put an object in the place of the one that it was made of; nobody may have changed that meanwhile."""
        return self.request("PUT", self._where(wanted), wanted, fieldManager=MANAGER) or {}

    def delete(self, api_version: str, kind: str, name: str, *, now: bool = False, version: str = "") -> None:
        """Remove an object with all that it owns; nothing to do where there is none. ``now`` gives pods no time.

        With ``version`` only if that is its resource version still: raises ClusterError with status 409 otherwise.
        """
        options: dict[str, Any] = {"propagationPolicy": "Background"} | ({"gracePeriodSeconds": 0} if now else {})
        if version:
            options["preconditions"] = {"resourceVersion": version}
        self.request("DELETE", self.address(api_version, kind, name), options)


def _group(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _refused(answer: Answer) -> None:
    """Raises ClusterError for an answer that is a refusal, with its message."""
    if answer.status < HTTPStatus.BAD_REQUEST:
        return
    found = answer.json()
    if isinstance(found, dict) and "message" in found:
        raise ClusterError(" ".join(str(found["message"]).split()), answer.status)
    said = " ".join(answer.body[:500].decode(errors="replace").split())
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # Not the cluster's words but those of the proxy, or of what stands before the cluster.
        raise ClusterError(f"the cluster does not answer ({said or answer.status})")
    raise ClusterError(said, answer.status)


def _end(process: subprocess.Popen[str]) -> None:
    """End a command of kubectl, which has nothing to lose and takes five seconds to end when it is asked to."""
    process.kill()
    process.communicate()
