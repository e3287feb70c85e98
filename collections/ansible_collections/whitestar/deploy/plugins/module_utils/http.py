# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain HTTP to a loopback port or a unix socket, which urllib cannot reach."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A response: status, headers with lower-case names, body (bytes)."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None if it is not."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def request(
    address: str,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    seconds: float = 5,
) -> Answer:
    """Ask ``address`` (``unix:/path`` or ``host:port``) for ``path``. Raises OSError or http.client.HTTPException."""
    kind, _, rest = address.partition(":")
    connection: http.client.HTTPConnection
    if kind == "unix":
        connection = _UnixConnection(rest, seconds)
    else:
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=seconds)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def try_request(address: str, path: str, seconds: float = 2) -> Answer | None:
    """As :func:`request` with GET, None if there was no answer."""
    try:
        return request(address, path, seconds=seconds)
    except (OSError, http.client.HTTPException):
        return None


def answers(address: str, path: str, seconds: float) -> bool:
    """Whether there is an answer, whatever it says, within ``seconds``."""
    deadline = time.monotonic() + seconds
    while try_request(address, path) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def wait_for_status(address: str, path: str, status: int, seconds: float) -> Answer | None:
    """Ask every 50 ms until the status is ``status``; the last answer (None if never any) after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        answer = try_request(address, path)
        if (answer and answer.status == status) or time.monotonic() > deadline:
            return answer
        time.sleep(0.05)
