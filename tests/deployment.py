"""A deployment of its own for a test: a state directory, a free port, and ansible-playbook run against them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RUN_SECONDS = 500
# Whatever the inventory is called: what a test has made it may take away.
CONFIRMED = "titanic_confirm_teardown={{ titanic_teardown_name }}"
# What tests read is Ansible's own output: each task by its name, with all that is said of it.
EVERY_TASK = {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"}


class Deployment:
    """One target, on this machine unless ``address`` says otherwise.

    ``project`` is where ansible-playbook is started, with its ansible.cfg; ``site`` is the playbook that deploys.
    """

    def __init__(self, place: Path, project: Path, inventory: Path, site: str = "site.yml") -> None:
        self.place = place
        self.project = project
        self.inventory = inventory
        self.site = site
        self.state = place / "state"
        self.variables = place / "variables.json"
        self.variables.touch(0o600)
        self.port = free_port()
        self.address = "127.0.0.1"
        self.seconds = RUN_SECONDS
        self.configure()

    def configure(self, **variables: Any) -> None:
        """Sets variables for the runs that follow; a file, since arguments can be read by every user of the machine."""
        own = {"titanic_state_directory": str(self.state), "titanic_api_port": self.port}
        self.variables.write_text(json.dumps({**own, **variables}))

    def command(self, playbook: str, *arguments: str) -> list[str]:
        """The command that runs a playbook on this target."""
        target = ["-i", str(self.inventory), "-e", f"@{self.variables}"]
        return ["ansible-playbook", playbook, *target, *arguments]

    def environment(self) -> dict[str, str]:
        """Where Ansible finds its configuration, and nothing that the machine's user has set for it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        own = {"ANSIBLE_CONFIG": str(self.project / "ansible.cfg"), "ANSIBLE_HOME": str(self.place / "home")}
        return {**kept, **own, **EVERY_TASK}

    def run(self, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a playbook to its end; standard output and error together."""
        return subprocess.run(
            self.command(playbook, *arguments),
            cwd=self.project,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.seconds,
        )

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON body of a request at the reverse proxy; None for a body that is no JSON."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=10)
        sent = {"Content-Type": "application/json", **headers} if body is not None else headers
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, None

    def processes(self) -> list[tuple[int, str]]:
        """Processes that have to do with the state directory, by their command line."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.state) in line:
                found.append((int(path.parent.name), line))
        return found


def free_port() -> int:
    """A port on the loopback address that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def workplace() -> Iterator[Path]:
    """A directory with a short path that other accounts may enter: PostgreSQL drops to one when we are root."""
    place = Path(tempfile.mkdtemp(prefix="titanic-"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def torn_down(deployment: Deployment, playbook: str, *arguments: str) -> Iterator[Deployment]:
    """Tears a deployment down at the end, also after a failure, so that nothing is left running."""
    try:
        yield deployment
    finally:
        if deployment.state.exists():
            deployment.run(playbook, "-e", CONFIRMED, *arguments)
