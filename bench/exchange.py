"""Small HTTP requests around the measurements: reading what to ask for, comparing, making raw requests."""

import http.client
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Response:
    """A whole response."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


def get(port: int, path: str) -> Response:
    """Ask a server on this machine once."""
    return _ask(port, "GET", path, None)


def post(port: int, path: str, content: object) -> Response:
    """Send JSON to a server on this machine once."""
    return _ask(port, "POST", path, json.dumps(content))


def _ask(port: int, method: str, path: str, body: str | None) -> Response:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body else {})
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Response(response.status, response.read())
    finally:
        connection.close()


def raw_request(method: str, path: str, content: object = None) -> str:
    """Return a whole HTTP/1.1 request as text, with the headers that clients send."""
    body = "" if content is None else json.dumps(content)
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "User-Agent: bench", "Accept: application/json"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", body])
