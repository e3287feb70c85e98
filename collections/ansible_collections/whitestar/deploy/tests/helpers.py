# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests share: modules run as programs, playbooks run by Ansible, and a tiny release that serves HTTP."""

from __future__ import annotations

import atexit
import http.server
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    json_bytes,
    make_directory,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import PROJECT_LABEL, DockerClient
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Ledger
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

COLLECTION = Path(__file__).resolve().parents[1]
COLLECTIONS = COLLECTION.parents[2]
# Those that ours stands on; bin/run has them lie here, ansible-galaxy may as well.
OTHERS = COLLECTIONS.parent / ".ansible/collections"
MODULES = "ansible_collections.whitestar.deploy.plugins.modules"
RUN_SECONDS = 240
ACCOUNT = "nobody"
# The service that roles deploy: its port, probes and promises.
SERVICE: dict[str, Any] = yaml.safe_load((COLLECTION / "roles/titanic_common/vars/main.yml").read_text())[
    "__titanic_common_service"
]


@dataclass(frozen=True)
class Result:
    """What a module said: its JSON, and everything it wrote."""

    facts: dict[str, Any]
    output: str

    def __getitem__(self, key: str) -> Any:
        return self.facts[key]

    @property
    def changed(self) -> bool:
        """Whether it says it changed something; a failed module has said so in the wrong place."""
        assert not self.failed, self.output
        return bool(self.facts["changed"])

    @property
    def failed(self) -> bool:
        return bool(self.facts.get("failed"))

    @property
    def message(self) -> str:
        """Why it failed."""
        assert self.failed, self.output
        return str(self.facts["msg"])

    @property
    def warnings(self) -> list[str]:
        return [str(warning) for warning in self.facts.get("warnings", [])]


def module_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "TITANIC_"))}
    return kept | {"PYTHONPATH": f"{COLLECTIONS}{os.pathsep}{OTHERS}"}


def module_arguments(name: str, arguments: dict[str, Any], *, check: bool) -> dict[str, Any]:
    return arguments | {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_module_name": name}


def start_module(name: str, arguments: dict[str, Any], *, check: bool = False, **more: Any) -> subprocess.Popen[str]:
    """Start a module as a program of its own, as Ansible does: arguments as JSON on its standard input."""
    given = module_arguments(name, arguments, check=check)
    process = subprocess.Popen(
        [sys.executable, "-m", f"{MODULES}.{name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=module_environment(),
        start_new_session=True,
        **more,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
    process.stdin.close()
    process.stdin = None
    return process


def finish_module(process: subprocess.Popen[str]) -> Result:
    """Wait for a module; its answer must be JSON and nothing else, however it ended."""
    return read_result(*process.communicate(timeout=RUN_SECONDS))


def read_result(output: str, complaint: str) -> Result:
    assert "Traceback" not in complaint, complaint
    return Result(json.loads(output), output + complaint)


# Imports once what modules import, half a second each time, and forks for each of them, as roles do on the controller.
FORKER = """
import json, os, sys
import ansible.module_utils.basic
from ansible_collections.whitestar.deploy.plugins.plugin_utils.in_process import _fork
requests = os.fdopen(os.dup(0))
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for request in requests:
    print(json.dumps(_fork(*json.loads(request))), flush=True)
"""


@cache
def _forker() -> subprocess.Popen[str]:
    """The process that modules are forked from, which ends with the tests; in a session of its own, with them."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=module_environment(),
        start_new_session=True,
    )
    atexit.register(process.communicate)
    return process


def run_module(name: str, arguments: dict[str, Any], *, check: bool = False) -> Result:
    """Run a module (others' by their full names) to its end, in a fork of a process that has imported what ours do."""
    forker = _forker()
    assert forker.stdin is not None
    assert forker.stdout is not None
    request = json.dumps(
        [name if "." in name else f"whitestar.deploy.{name}", module_arguments(name, arguments, check=check)]
    )
    try:
        forker.stdin.write(f"{request}\n")
        forker.stdin.flush()
        answer = json.loads(forker.stdout.readline())
    except BaseException:
        # A test that has run out of time leaves no answer behind for the next one.
        kill(forker.pid)
        _forker.cache_clear()
        raise
    return read_result(answer["stdout"], answer["stderr"])


OWNER = {"host": "h", "user": "u", "pid": 1, "started": 1}


def lock_options(root: Path, **options: Any) -> dict[str, Any]:
    """Arguments of host_lock for a run of OWNER that acquires the lock; ``options`` beside these or instead of them."""
    given = {"state_directory": str(root), "state": "present", "owner": OWNER, "address": "127.0.0.1", "port": 5000}
    return given | options


def write_play(place: Path, play: dict[str, Any], hosts: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Write a play for these hosts, and a configuration of nothing; the command and the environment to run it with."""
    (place / "ansible.cfg").write_text("[defaults]\nstdout_callback = ansible.builtin.default\n")
    (place / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False} | play]))
    (place / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    own = {
        "ANSIBLE_CONFIG": str(place / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "PYTHONPATH": str(COLLECTIONS),  # where collections are looked for too
        "ANSIBLE_HOME": str(place / "home"),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "ANSIBLE_FORCE_COLOR": "0",
    }
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.yml", "play.yml"]
    return command, module_environment() | own


def run_ansible(
    place: Path, play: dict[str, Any], *arguments: str, others: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a play on this machine, in an empty configuration; with the collections of ``others`` or without."""
    command, environment = write_play(place, play, {"here": {"ansible_connection": "local"}})
    if others:
        environment["ANSIBLE_COLLECTIONS_PATH"] += f"{os.pathsep}{OTHERS}"
    return subprocess.run(
        [*command, *arguments],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_SECONDS,
    )


def open_directory() -> Path:
    """A new directory with a path short enough for sockets, which PostgreSQL's account may enter."""
    place = Path(tempfile.mkdtemp(prefix="unit-", dir="/tmp"))
    place.chmod(0o755)
    return place


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_ipv6(host: str) -> None:
    """Skip a test of an IPv6 address on a machine that has none."""
    if ":" in host:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError as error:
            pytest.skip(f"this machine has no IPv6 ({error.strerror})")


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if condition():
            return
        assert time.monotonic() < deadline, "it did not happen in time"
        # What takes long to look at is looked at less often.
        time.sleep(max(0.02, 2 * (time.monotonic() - began)))


def kill(pid: int) -> None:
    """End a process that a test started, with its group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def spool(path: Path) -> dict[str, bytes]:
    """Every file below ``path`` with its content, to see that nothing changed."""
    return {str(item.relative_to(path)): item.read_bytes() for item in sorted(path.rglob("*")) if item.is_file()}


# A release as small as they come: it serves its readiness where it is told, and misbehaves on request.
TINY = """#!{python} -S
import http.server, json, os, pathlib, signal, socketserver, sys, time

behaviour = os.environ.get("TINY_BEHAVIOUR", "good")
drain = pathlib.Path(os.environ.get("TITANIC_DRAIN_FILE", "/nowhere"))
counts = {{"requests": 0, "errors": 0}}


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = 200, {{"release": os.environ.get("TITANIC_RELEASE"), "pid": os.getpid()}}
        if self.path == "/readyz" and behaviour == "never":
            status, body = 503, {{"errors": [{{"field": "database", "detail": "never ready"}}]}}
        elif self.path == "/readyz" and drain.exists():
            status, body = 503, {{"errors": [{{"field": "traffic", "detail": "draining"}}]}}
        elif self.path == "/people" and (behaviour == "fails" or (behaviour == "sours" and not drain.exists())):
            status = 500
        elif self.path == "/people" and behaviour == "pauses" and not counts["requests"]:
            status = 503
        elif self.path == "/promised" and behaviour == ("breaks" if drain.exists() else "breaks later"):
            status = 404
        elif self.path == "/slow" or (self.path == "/people" and behaviour == "slow"):
            time.sleep(3 if behaviour == "slow" else 0.5)
        body = json.dumps(body).encode()
        if self.path == "/people":
            counts["requests"] += 1
            counts["errors"] += status == 500
        if self.path == "/metrics":
            body = "".join(
                f'titanic_http_{{name}}_total{{{{route="/people"}}}} {{count}}\\n' for name, count in counts.items()
            ).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "a socket"

    def log_message(self, *words):
        pass


class SocketServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class PortServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def serve():
    print("tiny release", os.environ.get("TITANIC_RELEASE"), "starts", flush=True)
    if behaviour == "exits":
        sys.exit("tiny release: no reason to live")
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hoard = []
    while behaviour == "hungry":
        hoard.append(b"x" * 2**20)
    kind, _, place = os.environ["TITANIC_BIND"].partition(":")
    server = SocketServer(place, Answers) if kind == "unix" else PortServer((kind, int(place)), Answers)
    server.serve_forever()


def answer(value, status=0):
    print(json.dumps(value))
    sys.exit(status)


command = sys.argv[1]
if command == "serve":
    serve()
elif command == "check":
    live = os.environ.get("TINY_LIVE_SCHEMA")
    if not live:
        sys.exit("tiny release: the database does not answer")
    if live == "null":
        answer({{"ok": False, "schema": None}}, 1)
    answer({{"ok": True, "schema": {{"current": "0009", "oldest_tolerated": live}}}})
elif command == "migrate":
    done = pathlib.Path(os.environ["TINY_DONE"])
    changed = not done.exists()
    if changed and "--check" not in sys.argv:
        done.touch()
    answer({{"from": None if changed else "0001", "to": "0001", "changed": changed}})
elif command == "read":
    text = [pathlib.Path(path).read_text() for path in (os.environ["TINY_SECRET"], sys.argv[2])]
    answer({{"account": [os.getuid(), os.getgid(), *os.getgroups()], "text": text}})
elif command == "fail":
    sys.exit("tiny release: this migration cannot be applied")
elif command == "mumble":
    print("no JSON")
elif command == "sleep" and "--check" not in sys.argv:
    time.sleep(30)
"""


def make_image(state: State, identity: str) -> Path:
    """A release directory as :mod:`local_venv_release` leaves it, with the tiny release in it."""
    image = state.images / identity
    (image / "bin").mkdir(parents=True, exist_ok=True)
    write_atomically(image / "bin" / "tiny", TINY.format(python=sys.executable).encode(), 0o755)
    return image


def make_workload(state: State, identity: str, required: str = "0001", **environment: str) -> dict[str, Any]:
    """A workload as the filter builds it, for a tiny release; ``environment`` tells it how to behave."""
    return tiny_workload(str(make_image(state, identity)), identity, required, **environment)


def tiny_workload(image: str, identity: str, required: str = "0001", **environment: str) -> dict[str, Any]:
    """The same for an image that is there: a release directory or a container image."""
    config = f"{abs(hash(tuple(sorted(environment.items())))) % 16**6:06x}"
    release = f"{identity}-{config}"
    return {
        "command": ["tiny", "serve"],
        "port": 8000,
        "replicas": 1,
        "environment": environment | {"TITANIC_RELEASE": release},
        "secret_files": {},
        "resources": {"memory": "64Mi", "cpu": "1.0"},
        "user": 10001,
        "probes": {"alive": "/healthz", "ready": "/readyz", "smoke": ["/", "/people"], "metrics": "/metrics"},
        "config": config,
        "release": release,
        "image": image,
        "image_facts": {
            "identity": identity,
            "version": "1.0.0",
            "schema": {"required": required, "oldest_tolerated": "0001"},
        },
    }


def record(state: State, *workloads: dict[str, Any]) -> None:
    """Releases that have served one after the other, as :mod:`host_release` records them."""
    make_directory(state.configurations, 0o755)
    for workload in workloads:
        (state.configurations / f"{workload['release']}.json").write_bytes(json_bytes(workload))
        facts = workload["image_facts"]
        ledger, _ = state.ledger().add(
            release=workload["release"],
            image=facts["identity"],
            config=workload["config"],
            schema_required=facts["schema"]["required"],
            schema_tolerates=facts["schema"]["oldest_tolerated"],
            version=facts["version"],
            by="alice@laptop",
            why="deploy",
            outcome="succeeded",
        )
        state.write_ledger(ledger)


# The base images that tests of the compose provider use; roles/lab_images provides them.
IMAGES = ("debian:trixie-slim", "python:3.13-slim-trixie", "postgres:17", "caddy:2")
TINY_DOCKERFILE = """FROM python:3.13-slim-trixie
COPY --chmod=0755 tiny /usr/local/bin/tiny
USER 10001:10001
"""


@contextmanager
def answering(place: Path, answers: Callable[[str], tuple[int, bytes]]) -> Iterator[str]:
    """A socket on which something answers like an engine of some version."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "a socket"

        def log_message(self, *_words: Any) -> None:
            pass

    path = str(place / "engine.sock")
    with socketserver.UnixStreamServer(path, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield path
        finally:
            server.shutdown()
            thread.join()


def engine_version(number: str) -> Callable[[str], tuple[int, bytes]]:
    return lambda _path: (200, json.dumps({"Version": number}).encode())


def client(place: Path, compose: str, buildx: str) -> str:
    """A docker client that knows nothing but the versions of its plugins."""
    path = place / "docker"
    path.write_text(f'#!/bin/sh\ncase "$1" in\ncompose) {compose};;\nbuildx) {buildx};;\nesac\n')
    path.chmod(0o755)
    return str(path)


# What a client prints, or does, when it is asked for the versions of its plugins.
GOOD_PLUGINS = ("echo 2.29.7", "echo github.com/docker/buildx v0.16.2 abc")


def remove_project(engine: DockerClient) -> None:
    """Remove every container, network, volume and image whose name or label is that of a test's project."""
    label = f"label={PROJECT_LABEL}={engine.project}"
    for words in (label, f"name={engine.project}-"):
        if found := engine.run("container", "ls", "--all", "--quiet", "--filter", words).split():
            engine.run("container", "rm", "--force", "--volumes", *found)
    for kind in ("network", "volume"):
        if found := engine.run(kind, "ls", "--quiet", "--filter", label).split():
            engine.run(kind, "rm", *found)
    if found := engine.run("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{engine.project}*").split():
        engine.run("image", "rm", *found)


def certificate(*names: str, days: float = 1) -> dict[str, str]:
    """A certificate for these names and its key, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "reverse proxy")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=9)).not_valid_after(now + timedelta(days=days))
    if names:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    signed = made.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()
    return {"certificate": signed, "key": private}


def add_release(ledger: Ledger, release: str, outcome: str = "succeeded", **facts: Any) -> Ledger:
    """One more attempt, come to its end."""
    given = {
        "image": release.partition("-")[0],
        "config": "c",
        "schema_required": "0001",
        "schema_tolerates": "0001",
        "version": "1",
        "by": "alice@laptop",
        "why": "deploy",
    }
    ledger, entry = ledger.add(release=release, outcome="started", **(given | facts))
    return ledger.finish(entry.number, outcome) if outcome != "started" else ledger


def history(*releases: str) -> Ledger:
    """A ledger of releases that have served one after the other."""
    ledger = Ledger()
    for release in releases:
        ledger = add_release(ledger, release)
    return ledger


# What the stages of a run that changes nothing say.
UNCHANGED_STAGES: dict[str, dict[str, Any]] = {
    "image": {"identity": "i", "description": {"version": "1"}},
    "target": {"steps": []},
    "secrets": {"steps": []},
    "database": {"steps": []},
    "schema": {"changed": False, "from": "0001", "to": "0001"},
    "seed": {"changed": False, "inserted": 0, "updated": 0},
    "api": {"action": "none", "release": "r", "front": []},
}


DOCKERFILE = """FROM debian:trixie-slim
ARG version=1.2.3
COPY . /app
RUN printf '{"version": "%s", "schema": {"required": "1", "oldest_tolerated": "1"}}' "$version" > /app/facts
"""


def build_context(place: Path) -> Path:
    """A build context, with its Dockerfile beside it."""
    root = place / "context"
    (root / "tests").mkdir(parents=True)
    (root / "code").write_text("print('hello')\n")
    (root / "tests" / "test_code").write_text("assert True\n")
    (place / "Dockerfile").write_text(DOCKERFILE)
    return root


PLANTED_PASSWORD = "planted-password-of-the-host"


class DriftTarget:
    """A target whose drift is asked for."""

    def __init__(self, state: State, **options: Any) -> None:
        self.state = state
        self.options = {"state_directory": str(state.root)} | options
        self.workload: dict[str, Any] = {}

    def secrets(self, value: str = PLANTED_PASSWORD) -> None:
        directory = str(self.state.root / "secrets")
        shared = {} if "engine" in self.options else {"owners": {"password": 10001}, "shared": True}
        assert not run_module("host_secrets", {"directory": directory, "given": {"password": value}, **shared}).failed

    def release(self, workload: dict[str, Any]) -> None:
        """Have it served, as roles/titanic_api does."""
        self.workload = workload | {"secret_files": {"password": str(self.state.root / "secrets" / "password")}}
        self.state.images.mkdir(exist_ok=True)
        given = {"by": "alice@laptop", "why": "deploy", "ready_seconds": 60, "drain_seconds": 1}
        engine = {"engine": self.options["engine"]} if "engine" in self.options else {}
        done = run_module("host_release", {"workload": self.workload, **self.state_option, **engine, **given})
        assert not done.failed, done.output

    @property
    def state_option(self) -> dict[str, Any]:
        return {"state_directory": str(self.state.root)}

    def lines(self, **options: Any) -> list[str]:
        """What differs, without who and when; no secret is told, and nothing is written."""
        before = spool(self.state.root)
        seen = run_module("host_drift_info", self.options | options)
        assert not seen.changed
        assert PLANTED_PASSWORD not in seen.output
        assert {name: content for name, content in spool(self.state.root).items() if "log" not in name} == {
            name: content for name, content in before.items() if "log" not in name
        }
        return [str(each["text"]).partition(" (")[0] for each in seen["differences"]]


def append_line(path: Path) -> None:
    path.write_text(path.read_text() + "\n")
