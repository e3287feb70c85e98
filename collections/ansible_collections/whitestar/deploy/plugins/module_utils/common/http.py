# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP to a port or a unix socket, and HTTPS to an address under another name, which urllib cannot do."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.address import split_host_port


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


PEM = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True)
class Tls:
    """How a reverse proxy with a certificate is asked from its own host, whatever its address there.

    ``authority`` has the certificates to trust, which may be the reverse proxy's own: as PEM, or a file with them. The
    system's authorities if it is empty.
    """

    hostname: str
    authority: str = ""

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Tls | None:
        """From a module's ``tls`` option; None without one, as for plain HTTP."""
        return cls(str(options["hostname"]), str(options["authority"] or "")) if options else None

    def context(self) -> ssl.SSLContext:
        """Checks name, dates and signature. Raises OSError if the authority's file cannot be read."""
        text = self.authority if PEM in self.authority else None
        context = ssl.create_default_context(cafile=None if text else self.authority or None, cadata=text)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        # A certificate that somebody made for a test need not have every extension of RFC 5280.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


TLS_OPTION = {"type": "dict", "options": {"hostname": {"type": "str", "required": True}, "authority": {"type": "str"}}}


class _TlsConnection(http.client.HTTPConnection):
    default_port = 443

    def __init__(self, address: tuple[str, int], tls: Tls, timeout: float) -> None:
        super().__init__(tls.hostname, address[1], timeout=timeout)
        self._address = address
        self._context = tls.context()

    def connect(self) -> None:
        plain = socket.create_connection(self._address, self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


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
    tls: Tls | None = None,
) -> Answer:
    """Ask ``address`` (``unix:/path`` or ``host:port``) for ``path``. Raises OSError or http.client.HTTPException."""
    kind, _, rest = address.partition(":")
    connection: http.client.HTTPConnection
    if kind == "unix":
        connection = _UnixConnection(rest, seconds)
    else:
        host, port = split_host_port(address)
        if tls:
            connection = _TlsConnection((host, port), tls, seconds)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def try_request(address: str, path: str, seconds: float = 2, tls: Tls | None = None, host: str = "") -> Answer | None:
    """As :func:`request` with GET, under the name ``host`` if one is given, None if there was no answer."""
    try:
        return request(address, path, headers={"Host": host} if host else {}, seconds=seconds, tls=tls)
    except (OSError, http.client.HTTPException):
        return None


def refuses(address: str) -> bool:
    """Whether nobody listens at ``host:port``, three times within a second."""
    for _ in range(3):
        try:
            socket.create_connection(split_host_port(address), 2).close()
        except ConnectionRefusedError:
            time.sleep(0.3)
        except OSError:
            return False
        else:
            return False
    return True


def answers(address: str, path: str, seconds: float) -> bool:
    """Whether there is an answer, whatever it says, within ``seconds``."""
    deadline = time.monotonic() + seconds
    while try_request(address, path) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
