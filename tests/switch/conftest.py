"""A whole site of its own for tests that release, roll back, kill and crowd: real runs on the local provider."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN_SECONDS = 240


class Site:
    """One deployment with a state directory, a port and a copy of the service of its own."""

    def __init__(self, state: Path, context: Path) -> None:
        self.state = state
        self.context = context
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self, *arguments: str) -> list[str]:
        """The command line of a run of the site with ``arguments`` besides what keeps it to itself."""
        own = {
            "titanic_target_state_directory": str(self.state),
            "titanic_image_context": str(self.context),
            "titanic_api_port": str(self.port),
        }
        ansible = str(Path(sys.executable).with_name("ansible-playbook"))
        settings = [word for name, value in own.items() for word in ("-e", f"{name}={value}")]
        return [ansible, "site.yml", "-i", "inventories/local", *settings, *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a run, its output on a pipe, in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """A whole run: (exit status, output)."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=RUN_SECONDS)
        return process.returncode, output

    def succeed(self, *arguments: str) -> str:
        """A run that must succeed: its output."""
        status, output = self.run(*arguments)
        assert status == 0, output
        return output

    def refuse(self, *arguments: str) -> str:
        """A run that must fail: its output."""
        status, output = self.run(*arguments)
        assert status != 0, output
        assert "Traceback" not in output or "last output" in output, output
        return output

    def changed(self, output: str) -> int:
        """How many tasks a run's recap says it changed."""
        found = re.search(r"changed=(\d+)", output)
        assert found, output
        return int(found[1])

    def change_service(self, code: str) -> None:
        """Append a line to the service's package, so that its next release is another one."""
        with (self.context / "src" / "titanic_api" / "__init__.py").open("a", encoding="utf-8") as package:
            package.write(f"\n{code}\n")

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """Status and JSON body (None if it has none) of a request to the front door; status 0 if nothing answered."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=15) as response:
                content = response.read()
                return response.status, json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            content = error.read()
            return error.code, json.loads(content) if content.startswith(b"{") else None
        except OSError:
            return 0, None

    def release(self) -> str:
        """The release that answers."""
        status, body = self.ask("/version")
        assert status == 200, body
        return str(body["release"])

    def rows(self) -> int:
        """How many people the front door lists."""
        status, body = self.ask("/people")
        assert status == 200, body
        return len(body)

    def ledger(self) -> list[dict[str, Any]]:
        """The ledger's entries; none before the first release."""
        path = self.state / "ledger.json"
        entries: list[dict[str, Any]] = json.loads(path.read_text())["entries"] if path.exists() else []
        return entries

    def pid(self, name: str) -> int:
        """The pid of one of the site's processes."""
        if name == "postgresql":
            return int((self.state / "database" / "data" / "postmaster.pid").read_text().split()[0])
        return int(json.loads((self.state / "run" / f"{name}.json").read_text())["pid"])

    def colour(self) -> str:
        """The colour that runs."""
        return next(name for name in ("blue", "green") if (self.state / "run" / f"{name}.json").exists())

    def executes(self, words: str) -> bool:
        """Whether a program of the site's runs with ``words`` in its command line."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(self.state) in line and words in line:
                    return True
        return False

    def kill(self, name: str) -> None:
        """SIGKILL one of the site's processes and wait until it is gone."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        for _ in range(100):
            if not Path(f"/proc/{pid}").exists():
                return
            time.sleep(0.05)

    def remove(self) -> None:
        """Take all of it away, and say what stayed."""
        status, output = self.run("--tags", "teardown", "-e", "titanic_confirm_teardown=true")
        if status:
            print(output)
            for log in sorted(self.state.glob("log/*.log")):
                print(f"--- {log}\n{log.read_text(errors='replace')[-3000:]}")
        assert status == 0
        assert not self.state.exists()


def copy_service(target: Path) -> Path:
    """The service as a release takes it, to be changed at will."""
    leave_out = shutil.ignore_patterns("tests", "__pycache__", ".*", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT / "service", target, ignore=leave_out)
    return target


@contextlib.contextmanager
def new_site() -> Iterator[Site]:
    """A site on which nothing has been deployed yet; taken away afterwards."""
    # PostgreSQL, which refuses root, must be able to enter it, and paths of sockets are short.
    base = Path("/var/lib" if os.geteuid() == 0 else tempfile.gettempdir())
    state = Path(tempfile.mkdtemp(prefix="titanic-test-", dir=base))
    state.rmdir()
    with tempfile.TemporaryDirectory() as scratch:
        site = Site(state, copy_service(Path(scratch) / "service"))
        try:
            yield site
        finally:
            if state.exists():
                site.remove()


@pytest.fixture
def empty_site() -> Iterator[Site]:
    """A site of the test's own, on which nothing has been deployed yet."""
    with new_site() as site:
        yield site


@pytest.fixture(scope="session")
def served_site() -> Iterator[Site]:
    """The site that tests share."""
    with new_site() as site:
        site.succeed()
        yield site


@pytest.fixture
def fresh_site() -> Iterator[Site]:
    """A site of the test's own that serves its first release."""
    with new_site() as site:
        site.succeed()
        yield site


@pytest.fixture
def site(served_site: Site) -> Iterator[Site]:
    """The shared site, with the service's source as it is in the checkout before and after."""
    yield served_site
    shutil.rmtree(served_site.context)
    copy_service(served_site.context)
