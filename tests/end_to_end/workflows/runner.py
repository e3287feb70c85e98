"""Runs the workflows of a checkout by act, in containers on the lab's engine, against deployments of this machine."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import yaml

from tests.end_to_end.switch.site import REGISTRY, ROOT, ComposeSite
from tests.engine import Engine

HERE = Path(__file__).parent
# The checkout has always the same path, so that its .venv stays from one run to the next.
PLACE = Path("/var/cache/titanic-lab/workflows")
CHECKOUT = PLACE / "checkout"
KEPT = (".venv", ".ansible")
LABEL = "ubuntu-24.04"
RUN_SECONDS = 600
AUTHOR = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org")
PASSWORD = "planted-signer"
ACTOR = "somebody"
TOKEN = "planted-job-token"


class Listener:
    """A webhook on this machine, and what it was told of."""

    def __init__(self) -> None:
        told: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.told = told
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def take(self) -> list[tuple[str, str]]:
        """Environment and event of what came since this was last asked, in order."""
        found = [(told["environment"], told["event"]) for told in self.told]
        self.told.clear()
        return found


@dataclass
class Run:
    """What became of a workflow: whether it succeeded, its jobs by their id in their order, and all that was said."""

    succeeded: bool
    jobs: dict[str, str]
    output: str


@dataclass
class Runner:
    """A checkout with a history of its own, and act, which runs its workflows."""

    engine: Engine
    image: str
    base: Path
    listener: Listener
    cosign: Path
    sites: dict[str, ComposeSite] = field(default_factory=dict)

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *AUTHOR, *words], cwd=CHECKOUT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, change: Mapping[str, str] | None = None) -> None:
        """A commit that appends to files; the service of the checkout is otherwise as it is here."""
        self.git("checkout", "--quiet", "--force", "start", "--", "service")
        for name, code in (change or {}).items():
            with (CHECKOUT / name).open("a", encoding="utf-8") as file:
                file.write(f"\n{code}\n")
        self.git("commit", "--quiet", "--all", "--allow-empty", "--message", "A change")

    def run(self, workflow: str, event: str = "push", inputs: Mapping[str, str] | None = None) -> Run:
        """A workflow, by the event that starts it."""
        mounts = [(CHECKOUT / name, CHECKOUT / name) for name in KEPT]
        mounts += [(self.base / "runner", Path("/runner")), (self.base / "state", self.base / "state")]
        mounts += client(self.engine)
        variables = {
            "TITANIC_IMAGE": f"{REGISTRY}/{self.base.name}",
            "TITANIC_SIGNER_KEY": "/runner/cosign.pub",
            "COSIGN_KEY": "/runner/cosign.key",
            "GATE_STEPS": "lint-ruff",
        }
        secrets = {"GITHUB_TOKEN": TOKEN, "TITANIC_NOTIFY_URL": self.listener.url}
        words = [
            *("--workflows", f".github/workflows/{workflow}.yml", "--json", "--rm", "--pull=false"),
            *("--platform", f"{LABEL}={self.image}", "--container-daemon-socket", f"unix://{self.engine.socket}"),
            *("--container-options", " ".join(f"--volume={there}:{here}" for there, here in mounts)),
            *("--env", f"COSIGN_PASSWORD={PASSWORD}", "--defaultbranch", "main", "--action-offline-mode"),
            *("--actor", ACTOR),
            # What is made there is given to containers, whose engine is not in the job's.
            *("--env", f"TMPDIR={self.base / 'state/tmp'}"),
            *(word for name, value in variables.items() for word in ("--var", f"{name}={value}")),
            *(word for name, value in secrets.items() for word in ("--secret", f"{name}={value}")),
            *(word for name, value in (inputs or {}).items() for word in ("--input", f"{name}={value}")),
            *(word for used in stand_ins() for word in ("--local-repository", used)),
        ]
        home = {"HOME": str(self.base), "XDG_CACHE_HOME": str(self.base / "cache"), "XDG_CONFIG_HOME": str(self.base)}
        done = subprocess.run(
            [str(Path(sys.executable).with_name("act")), event, *words],
            cwd=CHECKOUT,
            env={**os.environ, **home},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_SECONDS,
        )
        jobs, said = {}, []
        for line in done.stdout.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                said.append(line)
                continue
            said.append(f"[{entry.get('job', '')}] {entry.get('msg', '').rstrip()}")
            if "jobResult" in entry:
                jobs[entry["jobID"]] = entry["jobResult"]
        return Run(done.returncode == 0, jobs, "\n".join(said))


def stand_ins() -> list[str]:
    """What is used of the actions of others, as act is told of what stands in for them."""
    text = "".join(path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml"))
    used = set(re.findall(r"uses: ([\w-]+/([\w-]+)@[0-9a-f]{40})", text))
    return [f"{action}={HERE / 'actions' / name}" for action, name in used if (HERE / "actions" / name).is_dir()]


def client(engine: Engine) -> list[tuple[Path, Path]]:
    """The docker command of this machine and its plugins, and where a job's container has them."""
    plugins = json.loads(engine("info", "--format", "{{json .ClientInfo.Plugins}}"))
    paths = [Path(plugin["Path"]).resolve() for plugin in plugins]
    found = [(path, Path("/usr/local/lib/docker/cli-plugins") / path.name) for path in paths]
    return [(Path(engine.program).resolve(), Path("/usr/local/bin/docker")), *found]


def copy_checkout() -> None:
    """Lays what a commit of this checkout would hold where workflows are run, with a history of its own."""
    CHECKOUT.mkdir(parents=True, exist_ok=True)
    for path in CHECKOUT.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (CHECKOUT / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, CHECKOUT / name)


def inventory(site: ComposeSite) -> str:
    """Variables of an inventory in the place of one of the checkout's: containers on this machine."""
    text = (ROOT / "inventories/compose/group_vars/all/titanic.yml").read_text()
    variables = yaml.safe_load(text)
    own = {
        "titanic_state_directory": str(site.state),
        "titanic_project": site.project,
        "titanic_api_port": site.port,
        "titanic_api_probation_seconds": 6,
        "titanic_api_ready_seconds": 15,
    }
    return "# A deployment of a test.\n" + yaml.safe_dump(variables | own)


def runner_image(engine: Engine) -> str:
    """The image of the jobs, built where there is none."""
    tag = f"titanic-workflows:{hashlib.sha256((HERE / 'Dockerfile').read_bytes()).hexdigest()[:12]}"
    if engine.run("image", "inspect", tag).returncode:
        words = ["build", "--quiet", "--network", "host", "--tag", tag, "--file", str(HERE / "Dockerfile")]
        engine(*words, str(HERE / "actions"))
    return tag


def prepare(engine: Engine, image: str) -> None:
    """Has the checkout's .venv be there, made by a container as a job would make it; nothing is done where it is."""
    mounts = [CHECKOUT, Path.home() / ".cache/uv"]
    mounts[1].mkdir(parents=True, exist_ok=True)
    for part in ("bench", "deploy"):
        words = [f"--volume={place}:{place}" for place in mounts]
        engine("run", "--rm", "--network=host", f"--workdir={CHECKOUT}", *words, image, "bin/run", part, "true")


@contextmanager
def alone() -> Iterator[None]:
    """Nobody else uses the checkout of the workflows meanwhile."""
    PLACE.mkdir(parents=True, exist_ok=True)
    handle = os.open(PLACE, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def keys(place: Path, cosign: Path) -> None:
    """A signer's pair of keys, and cosign itself, where the jobs have them."""
    (place / "bin").mkdir(parents=True)
    shutil.copy2(cosign, place / "bin/cosign")
    environment = {**os.environ, "COSIGN_PASSWORD": PASSWORD}
    subprocess.run([str(cosign), "generate-key-pair"], cwd=place, env=environment, check=True, capture_output=True)


@contextmanager
def new_runner(
    engine: Engine, cosign: Path, base: Path, names: Sequence[str] = ("staging", "prod")
) -> Iterator[Runner]:
    """A runner with nothing deployed yet; all that it has deployed is taken away afterwards."""
    with alone(), Listener() as listener:
        runner = Runner(engine, runner_image(engine), base, listener, cosign)
        keys(base / "runner", cosign)
        copy_checkout()
        for name in names:
            site = ComposeSite(base / "state" / f"{base.name}-{name}", CHECKOUT / "service", engine)
            runner.sites[name] = site
            site.settings["titanic_image_repository"] = f"{REGISTRY}/{base.name}"
            place = CHECKOUT / "inventories" / name
            shutil.rmtree(place)
            shutil.copytree(ROOT / "inventories/compose", place)
            (place / "group_vars/all/titanic.yml").write_text(inventory(site))
        (base / "state/tmp").mkdir(parents=True)
        prepare(engine, runner.image)
        runner.git("init", "--quiet", "--initial-branch=main")
        runner.git("remote", "add", "origin", "https://github.com/example/titanic")
        runner.git("add", "--all")
        runner.git("commit", "--quiet", "--message", "The checkout")
        runner.git("tag", "start")
        try:
            yield runner
        finally:
            for site in runner.sites.values():
                engine.clear(site.project, f"{REGISTRY}/{base.name}")
            engine.run("volume", "rm", "act-toolcache")
