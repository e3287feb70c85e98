# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A package index that asks for a password and has one package that no other index has."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

NAME = "titanic-mirrored"
WHEEL = "titanic_mirrored-1.0-py3-none-any.whl"
PASSWORD = "index-5ecret"


def wheel() -> bytes:
    """A package whose one module says where it comes from."""
    parts = {
        "titanic_mirrored.py": "ORIGIN = 'the mirror'\n",
        "titanic_mirrored-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n",
        "titanic_mirrored-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "titanic_mirrored-1.0.dist-info/RECORD"
    parts[record] = "".join(f"{name},,\n" for name in (*parts, record))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0)), text)
    return packed.getvalue()


@dataclass
class Index:
    """The index: its address with the password, the line of a lock for its package, and what it was asked for."""

    address: str
    lock: str
    asked: list[str] = field(default_factory=list)

    def account(self, home: Path) -> dict[str, str]:
        """The environment of an account that has the index in pip's configuration alone."""
        file = home / ".config/pip/pip.conf"
        file.parent.mkdir(parents=True)
        file.write_text(f"[global]\nindex-url = {self.address}\n")
        own = {"HOME": str(home), "UV_CACHE_DIR": str(home / "cache"), "PIP_CACHE_DIR": str(home / "pip")}
        return without_index(os.environ) | own


def without_index(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment that says nothing about where packages come from."""
    return {name: text for name, text in environment.items() if not name.startswith(("PIP_", "UV_", "XDG_"))}


@contextmanager
def private_index(host: str = "127.0.0.1") -> Iterator[Index]:
    """Serve it at an address of this machine."""
    content = wheel()
    digest = hashlib.sha256(content).hexdigest()
    pages = {
        f"/simple/{NAME}/": ("text/html", f"<!doctype html><a href='/{WHEEL}#sha256={digest}'>{WHEEL}</a>".encode()),
        f"/{WHEEL}": ("application/zip", content),
    }
    allowed = "Basic " + base64.b64encode(f"reader:{PASSWORD}".encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = pages.get(self.path, ("", b""))
            status = (200 if kind else 404) if self.headers.get("Authorization") == allowed else 401
            if status == 200:
                index.asked.append(self.path)
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
            body = body if status == 200 else b""
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((host, 0), Handler) as server:
        address = f"http://reader:{PASSWORD}@{host}:{server.server_port}/simple"
        index = Index(address, f"{NAME}==1.0 --hash=sha256:{digest}\n")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield index
        finally:
            server.shutdown()
