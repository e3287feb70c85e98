"""Whole sites for tests that release, roll back, kill and crowd: real runs, of processes, containers or pods."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.deployment import CONFIRMED, EVERY_TASK, free_port
from tests.end_to_end.load.open_loop import LoadPlan
from tests.engine import Engine, process_in

ROOT = Path(__file__).resolve().parents[3]
RUN_SECONDS = 500
# The one that the lab's cluster pulls from.
REGISTRY = "127.0.0.1:5055"
READY_SECONDS = 60
COMPONENT = "app.kubernetes.io/component"
OURS = {"app.kubernetes.io/managed-by": "whitestar.deploy"}
COMMAND = "whitestar.deploy/command"
COLOURS = ("blue", "green")
# Tests of one provider only.
LOCAL = pytest.mark.parametrize("engine", ["local"], indirect=True, scope="session")
COMPOSE = pytest.mark.parametrize("engine", ["compose"], indirect=True, scope="session")
KUBERNETES = pytest.mark.parametrize("engine", ["kubernetes"], indirect=True, scope="session")
# Tests of what hosts have: one machine, two colours, a reverse proxy of their own.
HOSTS = pytest.mark.parametrize("engine", ["local", "compose"], indirect=True, scope="session")
# Somebody to write.
PERSON = {
    "survived": True,
    "passengerClass": 1,
    "name": "Mrs. Written Before",
    "sex": "female",
    "siblingsOrSpousesAboard": 0,
    "parentsOrChildrenAboard": 0,
    "fare": 1.0,
}

PSQL = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--username", "postgres", "--dbname", "titanic"]


class Site(ABC):
    """One deployment with a state directory, a reverse proxy and a copy of the service of its own.

    ``address``, ``port`` and ``host`` are where its reverse proxy is and the name that it is asked by. ``settings`` are
    variables that every run of it gets, besides those that keep it to itself.
    """

    provider: str
    inventory: str = ""
    # The release of the service as it is in the checkout, once it has been served.
    sound: str = ""
    # The project whose playbooks its runs take, and the one whose inventories.
    project_root: Path = ROOT
    inventory_root: Path = ROOT

    def __init__(self, state: Path, context: Path, address: str, port: int, host: str) -> None:
        self.state = state
        self.context = context
        self.port = port
        self.url = f"http://{address}:{port}"
        self.host = host
        self.settings: dict[str, Any] = {
            "titanic_state_directory": str(state),
            "titanic_image_context": str(context),
            "titanic_api_port": port,
        }

    def command(self, *arguments: str, playbook: str = "site.yml") -> list[str]:
        """The command line of a run of the playbook with ``arguments`` besides what keeps it to itself."""
        ansible = str(Path(sys.executable).with_name("ansible-playbook"))
        return [
            ansible,
            playbook,
            "-i",
            str(self.inventory_root / "inventories" / (self.inventory or self.provider)),
            "-e",
            json.dumps(self.settings),
            *arguments,
        ]

    def start(self, *arguments: str, playbook: str = "site.yml") -> subprocess.Popen[str]:
        """Begin a run, its output on a pipe, in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments, playbook=playbook),
            cwd=self.project_root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | EVERY_TASK | {"PYTHONUNBUFFERED": "1", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        )

    def run(self, *arguments: str, playbook: str = "site.yml") -> tuple[int, str]:
        """A whole run: (exit status, output)."""
        process = self.start(*arguments, playbook=playbook)
        try:
            output, _ = process.communicate(timeout=RUN_SECONDS)
        except BaseException:
            # A test that is cut short must not leave a run that holds the lock and works on.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return process.returncode, output

    def succeed(self, *arguments: str, playbook: str = "site.yml") -> str:
        """A run that must succeed: its output."""
        status, output = self.run(*arguments, playbook=playbook)
        assert status == 0, output
        return output

    def refuse(self, *arguments: str, playbook: str = "site.yml") -> str:
        """A run that must fail: its output."""
        status, output = self.run(*arguments, playbook=playbook)
        assert status != 0, output
        assert "Traceback" not in output or "last output" in output, output
        return output

    def changed(self, output: str) -> int:
        """How many tasks a run's recap says it changed."""
        found = re.search(r"changed=(\d+)", output)
        assert found, output
        return int(found[1])

    def change_service(self, code: str, module: str = "__init__") -> None:
        """Append a line to the service's package, or a module of it, so that its next release is another one."""
        with (self.context / "src" / "titanic_api" / f"{module}.py").open("a", encoding="utf-8") as package:
            package.write(f"\n{code}\n")

    def ask(
        self, path: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON body (None without one) of a request to the reverse proxy; status 0 if nothing answered."""
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", "Host": self.host} | (headers or {})
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=15) as response:
                content = response.read()
                return response.status, json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            with error:
                content = error.read()
            return error.code, json.loads(content) if content.startswith(b"{") else None
        except OSError:
            return 0, None

    def wait_until_it_answers(self, seconds: float, times: int = 1) -> float:
        """Ask for a person until there is an answer, so many times in a row; how many seconds that took."""
        began, answered = time.monotonic(), 0
        while answered < times:
            status = self.ask("/people?limit=1")[0]
            answered = answered + 1 if status == 200 else 0
            assert time.monotonic() - began < seconds, f"still {status} after {seconds} s\n{self.logs()}"
            time.sleep(0 if answered == times else 0.05)
        return time.monotonic() - began

    def release(self) -> str:
        """The release that answers."""
        status, body = self.ask("/version")
        assert status == 200, body
        return str(body["release"])

    def rows(self) -> int:
        """How many people the reverse proxy lists. It is asked again if it says so, as it does after a fault."""
        deadline = time.monotonic() + 60
        while (answer := self.ask("/people"))[0] == 503 and time.monotonic() < deadline:
            time.sleep(1)
        status, body = answer
        assert status == 200, body
        return len(body)

    def load(self, **settings: Any) -> LoadPlan:
        """A plan of the load client for the reverse proxy."""
        return LoadPlan(self.url, host=self.host, **settings)

    def ways(self) -> dict[str, LoadPlan]:
        """The ways in, by name, that no release may drop a request on."""
        return {"the reverse proxy": self.load()}

    @abstractmethod
    def ledger(self) -> list[dict[str, Any]]:
        """The ledger's entries; none before the first release."""

    def failure_report(self, output: str) -> str:
        """The evidence that a failed run names, of the release that the ledger has last."""
        entry = self.ledger()[-1]
        assert entry["outcome"] == "failed"
        text = self.evidence(output, f"{entry['number']:06}-{entry['release']}")
        assert entry["reason"] in text
        return text

    @abstractmethod
    def evidence(self, output: str, name: str) -> str:
        """What a run's output calls evidence, which must be of this name and for the owner alone."""

    def executes(self, words: str) -> bool:
        """Whether a program of the site's runs with ``words`` in its command line."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if self.state.name in line and words in line:
                    return True
        return False

    @abstractmethod
    def logs(self) -> str:
        """The last words of each part, for a test that failed."""

    @abstractmethod
    def administer(self, sql: str) -> str:
        """What the database answers to its administrator."""

    @abstractmethod
    def stages(self) -> list[Callable[[], bool]]:
        """What shows that a stage of the first run is at work, in order."""

    @abstractmethod
    def switching(self) -> list[Callable[[], bool]]:
        """What shows how far the next release's way from the one that serves now has come, in order."""

    @abstractmethod
    def left(self) -> list[str]:
        """What is still there of it."""

    def remove(self) -> None:
        """Take all of it away, and say what stayed."""
        status, output = self.run("--tags", "teardown", "-e", CONFIRMED)
        if status:
            print(output)
            print(self.logs())
        left = self.left()
        self.clear()
        assert status == 0
        assert left == []

    @abstractmethod
    def clear(self) -> None:
        """Remove what a failed teardown left."""


class HostSite(Site):
    """A site on this machine: files below its state directory, two colours of which one serves, a port."""

    def __init__(self, state: Path, context: Path) -> None:
        port = free_port()
        super().__init__(state, context, "127.0.0.1", port, f"127.0.0.1:{port}")

    def ledger(self) -> list[dict[str, Any]]:
        path = self.state / "ledger.json"
        entries: list[dict[str, Any]] = json.loads(path.read_text())["entries"] if path.exists() else []
        return entries

    def evidence(self, output: str, name: str) -> str:
        found = re.search(r"evidence: ([\w./-]+\.txt)", output)
        assert found, output
        path = Path(found[1])
        assert path == self.state / "capsules" / f"{name}.txt"
        assert path.stat().st_mode & 0o777 == 0o600
        return path.read_text()

    def colour(self) -> str:
        """The colour that runs."""
        return next(colour for colour in COLOURS if self.runs(colour))

    @abstractmethod
    def runs(self, colour: str) -> bool:
        """Whether anything of this colour runs."""

    @abstractmethod
    def pid(self, name: str) -> int:
        """The pid of a part: ``proxy``, ``database`` or a colour."""

    @abstractmethod
    def kill(self, name: str) -> None:
        """SIGKILL a part and wait until it is gone; nothing but the next run starts it again."""

    def switching(self) -> list[Callable[[], bool]]:
        old = self.colour()
        return self.switching_from(old, "green" if old == "blue" else "blue")

    @abstractmethod
    def switching_from(self, old: str, new: str) -> list[Callable[[], bool]]:
        """What shows how far a switch from one colour to the other has come, in order."""


class LocalSite(HostSite):
    """Processes on this machine."""

    provider = "local"

    def __init__(self, state: Path, context: Path) -> None:
        super().__init__(state, context)
        # What tests kill stays so, unless they say otherwise.
        self.settings["titanic_api_supervised"] = False

    def runs(self, colour: str) -> bool:
        return (self.state / "run" / f"{colour}.json").exists()

    def pid(self, name: str) -> int:
        if name == "database":
            return int((self.state / "database" / "data" / "postmaster.pid").read_text().split()[0])
        record = "caddy" if name == "proxy" else name
        return int(json.loads((self.state / "run" / f"{record}.json").read_text())["pid"])

    def kill(self, name: str) -> None:
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        for _ in range(100):
            if not Path(f"/proc/{pid}").exists():
                return
            time.sleep(0.05)

    def administer(self, sql: str) -> str:
        return self.postgresql("psql", *PSQL, "--command", sql)

    def postgresql(self, program: str, *words: str) -> str:
        """What one of PostgreSQL's programs prints that asks the database, run by the account that this has."""
        command = [self.state / "tools/postgresql/bin" / program, "--host", self.state / "database/run", *words]
        owner = Path(f"/proc/{self.pid('database')}").stat()
        account = (
            {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if owner.st_uid != os.getuid() else {}
        )
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True, **account)  # type: ignore[call-overload]
        return str(done.stdout).strip()

    def logs(self) -> str:
        logs = sorted(self.state.glob("log/*.log"))
        return "\n".join(f"--- {log}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def stages(self) -> list[Callable[[], bool]]:
        return [
            lambda: any(self.state.glob("tools/*")),
            lambda: any(self.state.glob("images/*")),
            lambda: any(self.state.glob("database/*")),
            lambda: self.executes("titanic-api migrate"),
            lambda: self.executes("titanic-api seed"),
            (self.state / "Caddyfile").exists,
            lambda: any(self.state.glob("run/blue.json")),
            lambda: [entry["outcome"] for entry in self.ledger()][-1:] == ["succeeded"],
        ]

    def switching_from(self, old: str, new: str) -> list[Callable[[], bool]]:
        run = self.state / "run"
        return [
            (run / f"{new}.json").exists,
            (run / f"{new}.sock").exists,
            (run / old / "drain").exists,
            lambda: not (run / f"{old}.json").exists(),
        ]

    def left(self) -> list[str]:
        return [str(self.state)] if self.state.exists() else []

    def clear(self) -> None:
        # Processes that still run have their records in the directory, which is evidence then.
        if not self.executes(""):
            shutil.rmtree(self.state, ignore_errors=True)


class ComposeSite(HostSite):
    """Containers of one project on an engine of this machine."""

    provider = "compose"

    def __init__(self, state: Path, context: Path, engine: Engine) -> None:
        super().__init__(state, context)
        self.engine = engine
        self.project = state.name
        self.settings |= {
            **engine.variables,
            "titanic_project": self.project,
            "titanic_image_repository": self.project,
            "titanic_backup_image_repository": f"{self.project}-postgresql",
        }

    def containers(self, name: str) -> list[dict[str, Any]]:
        """The containers of a part, as the engine describes them."""
        service = f"api-{name}" if name in COLOURS else name
        return self.engine.inspect("container", *self.engine.containers(self.project, service))

    def runs(self, colour: str) -> bool:
        return any(container["State"]["Running"] for container in self.containers(colour))

    def pid(self, name: str) -> int:
        return int(self.containers(name)[0]["State"]["Pid"])

    def kill(self, name: str) -> None:
        # The engine takes this for the wish of a person, and does not start the container again.
        names = [str(container["Id"]) for container in self.containers(name)]
        self.engine("kill", "--signal", "KILL", *names)
        self.engine("wait", *names)

    def crash(self, name: str) -> None:
        """SIGKILL the first process of a part's first container, behind the engine's back: its restart policy heals."""
        container = self.containers(name)[0]
        pid = int(container["State"]["Pid"])
        assert process_in(pid, container["Id"]), "the engine's processes are not those of this machine"
        os.kill(pid, signal.SIGKILL)

    def logs(self) -> str:
        said = []
        for container in self.engine.containers(self.project):
            done = self.engine.run("logs", "--tail", "40", container)
            said.append(f"--- {container[:12]}\n{done.stdout}{done.stderr}")
        return "\n".join(said)

    def administer(self, sql: str) -> str:
        (container,) = self.containers("database")
        return self.engine("exec", container["Id"], "psql", *PSQL, "--command", sql).strip()

    def stages(self) -> list[Callable[[], bool]]:
        parts = self.state / "project" / "parts"
        return [
            lambda: self.executes("buildx build"),
            lambda: any(self.state.glob("images/*/image.json")),
            lambda: any(self.state.glob("secrets/*password")),
            (parts / "database.json").exists,
            lambda: self.executes("titanic-api migrate"),
            lambda: self.executes("titanic-api seed"),
            (parts / "proxy.json").exists,
            (parts / "api-blue.json").exists,
            lambda: [entry["outcome"] for entry in self.ledger()][-1:] == ["succeeded"],
        ]

    def switching_from(self, old: str, new: str) -> list[Callable[[], bool]]:
        parts = self.state / "project" / "parts"
        return [
            (parts / f"api-{new}.json").exists,
            lambda: self.runs(new),
            (self.state / "run" / old / "drain").exists,
            lambda: not (parts / f"api-{old}.json").exists(),
        ]

    def left(self) -> list[str]:
        directory = [str(self.state)] if self.state.exists() else []
        images = self.engine.images(f"{self.project}-postgresql")
        return directory + self.engine.left(self.project, self.project) + [f"image {name}" for name in images]

    def clear(self) -> None:
        self.engine.clear(self.project, self.project)
        self.engine.clear(self.project, f"{self.project}-postgresql")
        shutil.rmtree(self.state, ignore_errors=True)


class KubernetesSite(Site):
    """A namespace of a cluster whose node is of this machine."""

    provider = "kubernetes"

    def __init__(self, state: Path, context: Path, cluster: Cluster) -> None:
        super().__init__(state, context, cluster.address, 80, f"{state.name}.test")
        self.cluster = cluster
        self.namespace = state.name
        self.settings |= {
            **cluster.variables,
            "titanic_project": self.namespace,
            "titanic_api_hostname": self.host,
            "titanic_image_repository": f"{REGISTRY}/{self.namespace}",
            # This machine, which pods see by its end of the cable, asks the Service itself as well.
            "titanic_target_client_networks": [f"{cluster.client}/32"],
            # The number of pods is ours to say, not the load's.
            "titanic_api_max_replicas": 2,
            # Beside two other steps of the suite pods get a tenth of a processor, and a read now and then took 2 s.
            "titanic_api_environment": {"TITANIC_POOL_TIMEOUT_SECONDS": 5},
        }

    def get(self, kind: str, name: str = "", **labels: str) -> list[dict[str, Any]]:
        """The objects of a kind, or the one of this name."""
        return self.cluster.get(self.namespace, kind, name, **labels)

    def pods(self, component: str) -> list[dict[str, Any]]:
        """The pods of a part that have not been told to end."""
        found = self.get("pods", **{COMPONENT: component, **OURS})
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def administer(self, sql: str) -> str:
        (pod,) = self.pods("database")
        words = ["--namespace", self.namespace, "exec", pod["metadata"]["name"], "--", "psql", *PSQL]
        return self.cluster(*words, "--command", sql).strip()

    def ledger(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        for found in self.get("configmap", "titanic-ledger"):
            entries = json.loads(found["data"]["ledger.json"])["entries"]
        return entries

    def evidence(self, output: str, name: str) -> str:
        # Once as JSON has it, which escapes, or as it is.
        found = re.search(r"evidence: kubectl ([\w .-]+ --output jsonpath=\S+?')", output.replace("\\\\", "\\"))
        assert found, output
        words = shlex.split(found[1])
        assert words[:5] == ["--namespace", self.namespace, "get", "configmap", f"titanic-capsule-{name}"]
        return self.cluster(*words)

    def ways(self) -> dict[str, LoadPlan]:
        (service,) = self.get("service", "titanic-api")
        inside = LoadPlan(f"http://{service['spec']['clusterIP']}", host=self.host)
        return {"the Ingress": self.load(), "the Service": inside}

    def serving(self, component: str) -> dict[str, Any]:
        """A part's first pod, once all of them are ready, which is waited for: without any, nothing is in front."""
        deadline = time.monotonic() + READY_SECONDS
        while not (found := self.pods(component)) or not all(_ready(pod) for pod in found):
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.2)
        return found[0]

    def process(self, component: str) -> int:
        """The first process of a part's first pod, which is one of this machine."""
        (status,) = self.serving(component)["status"]["containerStatuses"]
        container = status["containerID"].partition("://")[2]
        found = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cgroup")]
        return min(pid for pid in found if process_in(pid, container))

    def crash(self, component: str) -> None:
        """SIGKILL the first process of a part's first pod, behind the cluster's back."""
        os.kill(self.process(component), signal.SIGKILL)

    def evict(self, component: str) -> None:
        """Delete a part's first pod without any time to end in, as if its node were lost."""
        name = self.serving(component)["metadata"]["name"]
        self.cluster("--namespace", self.namespace, "delete", "pod", name, "--grace-period=0", "--force")

    def logs(self) -> str:
        said = [self.cluster("--namespace", self.namespace, "get", "pods,events", "--output", "wide")]
        for pod in self.get("pods"):
            done = self.cluster.run("--namespace", self.namespace, "logs", "--tail", "40", pod["metadata"]["name"])
            said.append(f"--- {pod['metadata']['name']}\n{done.stdout}{done.stderr}")
        return "\n".join(said)

    def stages(self) -> list[Callable[[], bool]]:
        return [
            lambda: bool(self.get("lease", "titanic-deploy")),
            lambda: self.executes("buildx build"),
            lambda: bool(self.get("secret", "titanic-secrets")),
            lambda: bool(self.get("statefulset", "titanic-database")),
            lambda: bool(self.get("job", **{COMMAND: "migrate"})),
            lambda: bool(self.get("job", **{COMMAND: "seed"})),
            lambda: bool(self.pods("trial")),
            lambda: bool(self.get("deployment", "titanic-api")),
            lambda: [entry["outcome"] for entry in self.ledger()][-1:] == ["succeeded"],
        ]

    def switching(self) -> list[Callable[[], bool]]:
        def deployment() -> dict[str, Any]:
            return self.get("deployment", "titanic-api")[0]

        generation = deployment()["metadata"]["generation"]
        return [
            lambda: bool(self.pods("trial")),
            lambda: deployment()["metadata"]["generation"] > generation,
            lambda: len(self.get("pods", **{COMPONENT: "api", **OURS})) > len(self.pods("api")),
            lambda: deployment()["metadata"]["generation"] > generation and complete(deployment()),
        ]

    def left(self) -> list[str]:
        return [f"namespace {self.namespace}"] if self.get("namespace", self.namespace) else []

    def clear(self) -> None:
        self.cluster("delete", "namespace", self.namespace, "--ignore-not-found")
        if images := self.cluster.engine.images(f"{REGISTRY}/{self.namespace}"):
            self.cluster.engine.run("rmi", "-f", *images)
        shutil.rmtree(self.state, ignore_errors=True)


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any((entry["type"], entry["status"]) == ("Ready", "True") for entry in conditions)


def complete(deployment: dict[str, Any]) -> bool:
    """Whether every pod of a Deployment is as it is described now."""
    status = deployment["status"]
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return status["observedGeneration"] == deployment["metadata"]["generation"] and len(counts) == 1


def copy_service(target: Path, project: Path = ROOT) -> Path:
    """The service of a project as a release takes it, to be changed at will."""
    leave_out = shutil.ignore_patterns("tests", "__pycache__", ".*", "build", "dist", "*.egg-info")
    shutil.copytree(project / "service", target, ignore=leave_out)
    return target


def site_on(engine: Engine | Cluster | None, state: Path, context: Path) -> Site:
    """A site of pods on a cluster, of containers on an engine, or of processes."""
    if isinstance(engine, Cluster):
        return KubernetesSite(state, context, engine)
    return ComposeSite(state, context, engine) if engine else LocalSite(state, context)


@contextlib.contextmanager
def new_site(engine: Engine | Cluster | None, **settings: Any) -> Iterator[Site]:
    """A site on which nothing has been deployed yet, of containers if there is an engine; taken away afterwards."""
    # PostgreSQL, which refuses root, must be able to enter it, and paths of sockets are short.
    base = Path("/var/lib" if os.geteuid() == 0 else tempfile.gettempdir())
    state = base / f"titanic-test-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as scratch:
        context = copy_service(Path(scratch) / "service")
        site = site_on(engine, state, context)
        site.settings |= settings
        try:
            yield site
        finally:
            if site.left():
                site.remove()
            elif site.provider == "kubernetes":
                site.clear()  # what is recorded of images, which a teardown leaves
