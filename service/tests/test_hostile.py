# ruff: noqa: E501 (tables of requests are read by column)
"""More than three hundred requests that nobody means well: never a 5xx, never a trace, no memory kept."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from service.tests.lab import PERSON, Database, Service, serving

NOBODY = "/people/00000000-0000-4000-8000-000000000000"
TRACES = (b"Traceback", b"psycopg2", b'File "', b"SELECT ", b"/site-packages/")
FLAT_BYTES = 6 * 1024 * 1024


class Case(NamedTuple):
    """One request, as the bytes that are sent."""

    name: str
    data: bytes


def request(
    method: str, path: str, body: bytes = b"", *headers: str, content_type: str | None = "application/json"
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
    if content_type is not None and (body or method in ("POST", "PUT", "PATCH")):
        lines.append(f"Content-Type: {content_type}")
    if body and not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


VALUES = [
    "null", "true", "[]", "{}", '""', '"\\u0000"', '"a\\nb"', '"\\ud800"', '"\\udc00\\ud800"', '"\U0001f6a2"', '"\u202e"',
    "NaN", "-Infinity", "1e400", "-1e400", "1" * 400, "-" + "9" * 5000, "0.1e-400", '"1"', '"true"', "[[[[[]]]]]",
    '{"a": {"a": null}}', '"' + "x" * 5000 + '"', "-0", "2147483648", "9223372036854775808", "1.5", '"\\u0085"', '"; DROP"',
]  # fmt: skip
BODIES = [
    b"", b"\x00", b"\xff", b"\xef\xbb\xbf{}", b"null", b"[]", b"0", b'"x"', b"{", b"}", b"{]", b'{"a"', b"{,}", b"[" * 50_000,
    b'{"a":' * 10_000, b"[" * 30_000 + b"]" * 30_000, b"nul", b"NaN", b"Infinity", b"\r\n", b"{}\x00", b"{} {}",
    b'{"name": "\xc3"}', b'{"name": "\xed\xa0\x80"}', b'{"name":"a","name":"b"}', b'{"":""}', b'{"__proto__":{}}', b"9" * 60_000,
    b'{"uuid":"x"}', json.dumps({"x" * 60_000: 1}).encode(), b"<xml/>", b"a=b&c=d", b"{" + b'"a":1,' * 9000 + b'"b":2}',
    b"x" * 65_537, b"x" * 300_000, "{}".encode("utf-16"), "{}".encode("utf-32"), b"%7B%7D", b"{}" + b" " * 60_000,
]  # fmt: skip
PATHS = [
    "/people/", "/people//", "//people", "/people/..", "/people/../people", "/%2e%2e/%2e%2e/etc/passwd", "/people/%00", "/people/%ff",
    "/people/%0d%0aX:1", "/people/" + "a" * 8000, "/people/%F0%9F%9A%A2", "/people/{uuid}", "/people/<uuid>", "/people;x=1",
    "/people/00000000-0000-4000-8000-00000000000", "/people/00000000-0000-4000-8000-0000000000000", "/people/null",
    "/people/٠٠٠٠٠٠٠٠-0000-4000-8000-000000000000", "/people/1 OR 1=1", "/people/'", "/people/%27%3B--", "/PEOPLE", "/people.json",
    "/people\\x", "/?", "/#", "*", "http://other/people", "/./people", "/pages/../../config.py", "/pages/x/%2e%2e", "/docs/",
    "/openapi.json/", "/metrics/..", "/" + "a/" * 2000, "/people?", "/people?&&&", "/people?=", "/people?a", "/people?%", "/people?%zz",
    "/people?limit=%00", "/people?q=%ff", "/people?q=" + "%F0%9F%9A%A2" * 60, "/people?q=%25%25%5F%5C", "/people?sort=fare%3B--",
    "/people?sort=-", "/people?limit=1e3", "/people?limit=0x10", "/people?limit=+1", "/people?limit= 1", "/people?limit=1_0",
    "/people?offset=" + "9" * 300, "/people?survived[]=1", "/people?" + "a=1&" * 500, "/people?" + "x" * 7000,
    "/people?q=é", "/people?sex=male%00", "/people?passengerClass=NaN", "/people?limit=1;offset=2", "/people?q=%C0%AF",
]  # fmt: skip
METHODS = [
    "PUT",
    "DELETE",
    "PATCH",
    "TRACE",
    "OPTIONS",
    "CONNECT",
    "BREW",
    "get",
    "G" * 50,
    "POST\x00",
    "PROPFIND",
    "LOCK",
]
HEADERS = [
    "Accept: " + "a," * 3000, "Accept: \x00", "Accept: */*;q=x", "Accept: é", "Accept: ;;;", "If-None-Match: " + '"x",' * 1500,
    "If-None-Match: \"", "X-Request-ID: a\x01b", "X-Request-ID: " + "x" * 8000, "Range: bytes=0-", "Expect: 100-continue",
    "X-Forwarded-For: ' OR 1=1", "X: " + "y" * 9000, "Cookie: a=b; " * 500, "Host: a\r\nHost: b", "Content-Length: 5", "Content-Length: -1",
    "Content-Length: x", "Content-Length: 1\r\nContent-Length: 2", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: nonsense", "Content-Length: 99999999999999999999", "Upgrade: h2c", "Upgrade: websocket", "NoColon", ": empty",
    " folded: x", "A b: c", "Authorization: Bearer \xff", "Idempotency-Key: \x7f", "Accept-Encoding: gzip;q=9", "Forwarded: for=x",
]  # fmt: skip
TYPES = ["", "text/plain", "application/json; charset=utf-7", "application/json;charset=\x00", "multipart/form-data", "application/" + "x" * 4000,
         "application/x-www-form-urlencoded", "application/json, text/plain", "APPLICATION/JSON", "application/merge-patch+json"]  # fmt: skip


def cases() -> Iterator[Case]:
    whole = json.dumps(PERSON)
    for field, value in itertools.product(PERSON, VALUES):
        raw = whole.replace(json.dumps(field) + ": " + json.dumps(PERSON[field]), f'"{field}": {value}')
        yield Case(f"{field}={value[:20]}", request("POST", "/people", raw.encode("utf-8", "surrogatepass")))
    for number, body in enumerate(BODIES):
        for method, path in (("POST", "/people"), ("PUT", NOBODY), ("PATCH", NOBODY)):
            yield Case(f"{method} body {number}", request(method, path, body))
    for path in PATHS:
        yield Case(f"GET {path[:30]}", request("GET", path))
        yield Case(f"DELETE {path[:30]}", request("DELETE", path))
    for method, path in itertools.product(METHODS, ("/", "/people", NOBODY, "/metrics")):
        yield Case(f"{method} {path}", request(method, path))
    for header in HEADERS:
        yield Case(f"header {header[:30]}", request("GET", "/people?limit=1", b"", header))
        yield Case(f"POST header {header[:30]}", request("POST", "/people", b"{}", header))
    for content_type in TYPES:
        yield Case(f"type {content_type[:30]}", request("POST", "/people", b"{}", content_type=content_type))
    for number, junk in enumerate((b"\x00" * 100, b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")):  # fmt: skip
        yield Case(f"raw {number}", junk)
    for size in (b"zz", b"-1", b"fffffffffffffffff", b"5;ext=\x00", b"5\n"):
        yield Case(
            f"chunk {size!r}",
            request("POST", "/people", size + b"\r\nabcde\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
        )
    many = b"".join(b"1000\r\n" + b"x" * 4096 + b"\r\n" for _ in range(60))
    yield Case("chunked and large", request("POST", "/people", many, "Transfer-Encoding: chunked"))


REFUSED_EARLY = [
    request("POST", "/people", b"", "Content-Length: 4000", content_type="text/plain"),
    request("POST", "/people", b"", "Transfer-Encoding: chunked", content_type="text/plain"),
    request("POST", "/people", b"", "Content-Length: 400000"),
    request("DELETE", "/people/nobody", b"", "Content-Length: 4000"),
    b"POST /people HTTP/1.1\r\nHost: x\r\nA b: c\r\nContent-Length: 4000\r\n\r\n",
]


def answer(service: Service, data: bytes) -> bytes:
    """Whatever comes back until the connection is closed."""
    received = b""
    with service.connect(60) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            # Refused before it was all sent; what was said of it can still be read.
            if not (isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN):
                raise
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 20):
                received += piece
    return received


@pytest.fixture(scope="module")
def target(shared_database: Database) -> Iterator[Service]:
    with serving(shared_database, REQUEST_TIMEOUT_SECONDS=2) as running:
        yield running


def resident_bytes(service: Service) -> int:
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in service.workers]
    return sum(pages) * 4096


def test_no_request_breaks_anything(target: Service) -> None:
    everything = list(cases())
    assert len(everything) >= 300
    workers = target.workers
    rows = len(target.get("/people").json())
    bad = []
    for case in everything:
        started = time.monotonic()
        received = answer(target, case.data)
        status = received[9:12]
        if status.startswith(b"5") and status != b"501":
            bad.append(f"{case.name}: {received[:200]!r}")
        if any(trace in received for trace in TRACES) and b"openapi" not in received:
            bad.append(f"{case.name}: trace in {received[:300]!r}")
        if status.startswith((b"4", b"5")) and b"\r\nContent-Type: application/problem+json" not in received:
            bad.append(f"{case.name}: no problem in {received[:300]!r}")
        if status.startswith((b"4", b"5")) and b"\r\nx-request-id: " not in received.lower():
            bad.append(f"{case.name}: no request id in {received[:300]!r}")
        if time.monotonic() - started > 6:
            bad.append(f"{case.name}: {time.monotonic() - started:.1f} s")
    assert bad == []
    assert target.workers == workers, "no worker died"
    assert "Traceback" not in target.errors, target.errors[-3000:]
    assert not [line for line in target.log if int(line["status"]) >= 500]
    # What is kept for good, such as imports and caches, is there now in each worker.
    before = resident_bytes(target)
    for case in (again := everything[::3]):
        answer(target, case.data)
    grown = resident_bytes(target) - before
    assert grown < FLAT_BYTES, f"{grown / 1e6:.1f} MB kept after {len(again)} more requests"
    remove_what_was_made(target, rows)


def remove_what_was_made(service: Service, rows: int) -> None:
    people: list[dict[str, Any]] = service.get("/people").json()
    for person in people[rows:]:
        service("DELETE", f"/people/{person['uuid']}")
    assert len(service.get("/people").json()) == rows


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Transfer-Encoding: chunked", b"-1\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\nzz\r\n"),
        ("Transfer-Encoding: chunked", b"0\r\nno colon\r\n\r\n"),
        ("Transfer-Encoding: gzip, chunked", b"2\r\n{}\r\n0\r\n\r\n"),
        ("Content-Length: 10", b"abc"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_malformed_request_writes_nothing(service: Service, method: str, header: str, body: bytes) -> None:
    """The reverse proxy passes a body on while it comes, so what is wrong with its end is found here."""
    made = service.post(PERSON)
    path = made.headers["Location"]
    assert answer(service, request(method, path, body, header)).startswith(b"HTTP/1.1 400 ")
    assert service.get(path).headers["ETag"] == made.headers["ETag"]
    service("DELETE", path)


@pytest.mark.parametrize("head", REFUSED_EARLY)
def test_who_is_refused_may_go_on_sending(service: Service, head: bytes) -> None:
    """A reset would throw away the answer that he has not read yet."""
    with service.connect(20) as connection:
        connection.sendall(head)
        received = b""
        while piece := connection.recv(1 << 20):
            received += piece
        assert received.startswith(b"HTTP/1.1 4")
        # The answer is whole, and its connection still takes what a slower client has not sent yet.
        for _ in range(4):
            connection.sendall(b"x" * 1000)
            time.sleep(0.05)
        connection.shutdown(socket.SHUT_WR)
