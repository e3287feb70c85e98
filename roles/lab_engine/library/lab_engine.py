#!/usr/bin/python
"""Keep a Docker engine with BuildKit and Compose on a Debian machine without systemd, or use the one that is there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_engine
short_description: Keep a throwaway Docker engine
description:
  - Uses the machine's own engine when the default socket answers and the plugins for BuildKit and Compose are there.
  - Otherwise unpacks the engine of a newer Debian release beside the system, starts it and waits until it answers.
  - An engine that was killed, or left pid files or mounts behind, is started again.
author: The Titanic team (@whitestar)
options:
  state:
    description: Whether there is an engine. C(absent) removes everything that was made here, containers and images too.
    type: str
    choices: [present, absent]
    default: present
  directory:
    description: Holds everything of the engine, its socket and data included.
    type: path
    required: true
  cache:
    description: Where downloaded packages stay, so that the next engine needs no network.
    type: path
    required: true
  suite:
    description: Debian release that the engine's packages are taken from.
    type: str
    required: true
  mirror:
    description: Address (host:port) of a registry on this machine that is asked before Docker Hub.
    type: str
attributes:
  check_mode:
    description: Says whether an engine would be installed, started or removed, and does nothing.
    support: full
  diff_mode:
    description: Shows the state before and after.
    support: full
"""

EXAMPLES = r"""
- name: Keep an engine
  lab_engine:
    directory: /var/lib/titanic-lab/engine
    cache: /var/cache/titanic-lab
    suite: trixie
"""

RETURN = r"""
engine:
  description: Where the engine is.
  returned: when O(state=present)
  type: dict
  contains:
    docker_host: {description: "Its socket, as DOCKER_HOST takes it.", type: str}
    bin_directory: {description: Directory with the command docker., type: str}
    docker_config: {description: "Directory with the plugins, as DOCKER_CONFIG takes it.", type: str}
origin:
  description: Whose engine it is and its version.
  returned: when O(state=present)
  type: str
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    exclusively,
    json_bytes,
    read_json,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Process

PACKAGES = ("containerd", "docker-buildx", "docker-cli", "docker-compose", "docker.io")
# Tied to the machine's kernel and libc, so they come from its own release.
HOST_PACKAGES = ("iptables", "runc", "tini")
PROGRAMS = ("dockerd", "docker-proxy", "docker", "containerd", "containerd-shim-runc-v2", "ctr")
PLUGINS = ("docker-buildx", "docker-compose")
SYSTEM_SOCKET = Path("/var/run/docker.sock")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
# What the daemons make outside of their own directories, whatever they are told.
STRAY = (Path("/opt/containerd"), Path("/run/docker"), *(path / "docker" for path in Path("/sys/fs/cgroup").glob("*")))
# Where no systemd sorts processes into groups, each of the machine weighs as much as all containers together: beside
# three busy ones a container's health check of half a second takes thirty. As much as four of them, then.
CPU_SHARES = Path("/sys/fs/cgroup/cpu/docker/cpu.shares")
CONTAINERS_SHARES = 4 * 1024
FIREWALLS = ("iptables", "ip6tables")
TABLES = ("filter", "nat", "raw", "mangle")
# Docker's own chains, its default bridge and the bridges of its networks, as rules name them.
DOCKER_RULE = re.compile(r"DOCKER|\bdocker0\b|\bbr-[0-9a-f]{12}\b")
DOCKER_BRIDGE = re.compile(r"docker0|br-[0-9a-f]{12}")
SOCKET_PATH_BYTES = 107  # sun_path in unix(7), less its final zero
ANSWER_SECONDS = 5
START_SECONDS = 90
STOP_SECONDS = 30
DEAF_SECONDS = 5  # for an engine that does not answer anyway
DOWNLOAD_SECONDS = 900
LOG_TAIL_LINES = 15


class EngineError(RuntimeError):
    """The engine could not be brought to the state that was asked for; the message says what to do."""


def run(
    command: Sequence[str], environment: Mapping[str, str] | None = None, where: Path = Path("/"), seconds: float = 60
) -> str:
    """Standard output of ``command``, run in ``where`` for at most ``seconds``. Raises EngineError, with its words."""
    try:
        done = subprocess.run(
            list(command),
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            cwd=where,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        raise EngineError(f"'{shlex.join(command)}' failed: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout


def quietly(command: Sequence[str]) -> str:
    """Standard output of ``command``, empty when it fails: for what may be missing."""
    with suppress(EngineError):
        return run(command)
    return ""


def answers(path: Path) -> bool:
    """Whether an engine answers at this socket; quicker than starting a client for the question."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(str(path))
        connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
        return b" 200 " in connection.recv(64)
    return False


@dataclass(frozen=True)
class Found:
    """An engine that can be used, in the terms of the client's environment variables, and whose it is."""

    docker_host: str
    bin_directory: str
    docker_config: str
    origin: str

    def environment(self) -> str:
        """A shell file for people: source it, and ``docker`` is this engine's."""
        directory = shlex.quote(self.bin_directory)
        return (
            "# Source this file, and the command docker talks to the lab's engine.\n"
            f"export DOCKER_HOST={shlex.quote(self.docker_host)}\n"
            f"export DOCKER_CONFIG={shlex.quote(self.docker_config)}\n"
            f'case ":$PATH:" in *:{directory}:*) ;; *) export PATH={directory}:"$PATH" ;; esac\n'
        )


def of_the_machine() -> Found | None:
    """The machine's own engine, if its socket answers and its client has both plugins."""
    client = shutil.which("docker", path=SYSTEM_PATH)
    if not client or not answers(SYSTEM_SOCKET):
        return None
    try:
        version = run([client, "--host", f"unix://{SYSTEM_SOCKET}", "version", "--format", "{{.Server.Version}}"])
        run([client, "compose", "version"])
        run([client, "buildx", "version"])
    except EngineError:
        return None
    config = os.environ.get("DOCKER_CONFIG", str(Path("~/.docker").expanduser()))
    origin = f"the machine's own engine {version.strip()}"
    return Found(f"unix://{SYSTEM_SOCKET}", str(Path(client).parent), config, origin)


class Packages:
    """The engine's packages: fetched from a newer Debian release with an apt state of its own, and unpacked."""

    def __init__(self, cache: Path, suite: str) -> None:
        self.kept = cache / "packages" / suite
        self.suite = suite

    def unpack(self, root: Path) -> None:
        """Unpack the packages below ``root``, whole or not at all. Raises EngineError."""
        new = root.with_name("root.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        if not self.kept.is_dir():
            self._fetch()
        for file in sorted(self.kept.glob("*.deb")):
            run(["dpkg-deb", "--extract", str(file), str(new)])
        shutil.rmtree(new / "usr/share", ignore_errors=True)
        versions = [run(["dpkg-deb", "--show", str(file)]).split() for file in sorted(self.kept.glob("*.deb"))]
        if not {name for name, _ in versions} >= set(PACKAGES):
            raise EngineError(f"{self.kept} is not whole: remove it, and the next run fetches the packages again")
        (new / "versions.json").write_bytes(json_bytes(dict(versions)))
        shutil.rmtree(root, ignore_errors=True)
        new.rename(root)

    def _fetch(self) -> None:
        partial = self.kept.with_name(f"{self.suite}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for name in ("debs", "lists/partial", "cache/archives/partial", "none"):
            (partial / name).mkdir(parents=True)
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        (partial / "sources.list").write_text(f"deb [signed-by={keys}] {mirror()} {self.suite} main\n")
        settings = {
            "Dir::State::lists": partial / "lists",
            "Dir::Cache": partial / "cache",
            "Dir::Etc::sourcelist": partial / "sources.list",
            "Dir::Etc::sourceparts": partial / "none",
            "Dir::Etc::preferencesparts": partial / "none",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": 3,
        }
        (partial / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        own = {"APT_CONFIG": str(partial / "apt.conf")}
        run(["apt-get", "update", "-qq"], own, seconds=DOWNLOAD_SECONDS)
        run(["apt-get", "download", "-qq", *PACKAGES], own, partial / "debs", DOWNLOAD_SECONDS)
        (partial / "debs").rename(self.kept)
        shutil.rmtree(partial)


def mirror() -> str:
    """Address of the Debian archive that this machine uses. Raises EngineError if it is told none."""
    codename = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not codename or not shutil.which("apt-get"):
        raise EngineError("this is no Debian: install Docker with its Compose and buildx plugins, and it is used")
    question = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"]
    question.append(f"Codename: {codename[1]}")
    found = run(question).split()
    if not found:
        run(["apt-get", "update", "-qq"], seconds=DOWNLOAD_SECONDS)
        found = run(question).split()
    if not found:
        raise EngineError(f"apt knows no archive of {codename[1]}: is this Debian, and are its sources configured?")
    return found[0]


def install_host_packages() -> None:
    """Install what must come from the machine's own release. Raises EngineError."""
    listed = quietly(["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\\n", *HOST_PACKAGES])
    if listed.split().count("installed") == len(HOST_PACKAGES):
        return
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], quiet, seconds=DOWNLOAD_SECONDS)
    install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends"]
    run([*install, *HOST_PACKAGES], quiet, seconds=DOWNLOAD_SECONDS)


class Machine:
    """What the daemons change on the machine, outside of the engine's directory, and do not take back themselves."""

    def __init__(self, record: Path) -> None:
        self.record = record

    def remember(self) -> None:
        """Note the state before the engine's first start."""
        if not self.record.exists():
            policies = {name: quietly([name, "-S", "FORWARD"]).partition("\n")[0].split()[-1:] for name in FIREWALLS}
            new = [str(path) for path in STRAY if not path.exists()]
            state = {"ip_forward": FORWARDING.read_text().strip(), "policies": policies, "new": new}
            write_atomically(self.record, json_bytes(state), 0o644)

    def restore(self) -> None:
        """Remove Docker's rules, chains and bridges, put back what was noted, and remove what was not there."""
        before = read_json(self.record, {})
        for name in FIREWALLS:
            for table in TABLES:
                self._clear([name, "-w", "-t", table])
            for policy in before.get("policies", {}).get(name, []):
                quietly([name, "-w", "-P", "FORWARD", policy])
        for device in Path("/sys/class/net").iterdir():
            if DOCKER_BRIDGE.fullmatch(device.name) and (device / "bridge").is_dir():
                quietly(["ip", "link", "delete", device.name])
        if "ip_forward" in before:
            FORWARDING.write_text(before["ip_forward"])
        for path in before.get("new", []):
            for directory, _, _ in os.walk(path, topdown=False):
                with suppress(OSError):  # what is not empty holds something of somebody else
                    Path(directory).rmdir()

    @staticmethod
    def _clear(table: list[str]) -> None:
        lines = [shlex.split(line) for line in quietly([*table, "-S"]).splitlines() if DOCKER_RULE.search(line)]
        for rule in lines:
            if rule[0] == "-A":
                quietly([*table, "-D", *rule[1:]])
        for chain in (rule[1] for rule in lines if rule[0] == "-N"):
            quietly([*table, "-F", chain])
            quietly([*table, "-X", chain])


class Engine:
    """The engine in one directory."""

    def __init__(self, directory: Path, packages: Packages, registry: str | None) -> None:
        self.directory = directory
        self.packages = packages
        self.registry = registry
        self.root = directory / "root"
        self.bin = directory / "bin"
        self.config = directory / "docker-config"
        self.run = directory / "run"
        self.socket = self.run / "docker.sock"
        self.log = directory / "dockerd.log"
        self.machine = Machine(directory / "before.json")
        if len(os.fsencode(self.socket)) > SOCKET_PATH_BYTES:
            raise EngineError(f"{directory} is too long a path for a socket: {SOCKET_PATH_BYTES} bytes at most")

    def installed(self) -> bool:
        """Whether the packages are unpacked, from the release that is asked for."""
        return self._settings_path().is_file() and (self.root / "versions.json").is_file()

    def present(self) -> bool:
        """Install, configure and start what is not; returns whether anything was to do. Raises EngineError."""
        changed = not self.installed()
        if changed:
            self._stop()
            install_host_packages()
            self.packages.unpack(self.root)
            self._link()
        if self._configure():
            self._stop()
        if self.pid() and answers(self.socket):
            return changed
        self.start()
        return True

    def ready(self) -> bool:
        """Whether :meth:`present` would find nothing to do."""
        path = self._settings_path()
        configured = path.is_file() and path.read_bytes() == self._settings()
        return self.installed() and configured and self.pid() is not None and answers(self.socket)

    def found(self) -> Found:
        """The engine as it is handed back."""
        versions: dict[str, str] = json.loads((self.root / "versions.json").read_text())
        short = {name: re.split(r"[+~-]", versions[name])[0] for name in PACKAGES}
        origin = "Debian's engine {docker.io}, buildx {docker-buildx}, Compose {docker-compose}"
        for name, version in short.items():
            origin = origin.replace(f"{{{name}}}", version)
        return Found(f"unix://{self.socket}", str(self.bin), str(self.config), origin)

    def pid(self) -> int | None:
        """The live dockerd of this directory."""
        return self._live(self.run / "dockerd.pid", "dockerd")

    def start(self) -> None:
        """Start dockerd and wait until it answers. Raises EngineError with the end of its log."""
        self._stop()
        self._forget_the_dead()
        self.machine.remember()
        if CPU_SHARES.parent.parent.is_dir():
            CPU_SHARES.parent.mkdir(exist_ok=True)
            CPU_SHARES.write_text(str(CONTAINERS_SHARES))
        environment = {**os.environ, "PATH": f"{self.bin}:{SYSTEM_PATH}"}
        with self.log.open("ab") as output:
            started = output.tell()
            command = [str(self.bin / "dockerd"), "--config-file", str(self._settings_path())]
            child = subprocess.Popen(
                command,
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not answers(self.socket):
            if child.poll() is not None or time.monotonic() > deadline:
                lines = self.log.read_bytes()[started:].decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
                raise EngineError("the engine did not come up, its log ends:\n" + "\n".join(lines))
            time.sleep(0.1)

    def absent(self) -> None:
        """Stop the engine and remove everything of it: containers, networks, mounts, rules, files."""
        if self.installed():
            if not answers(self.socket):
                with suppress(EngineError):  # what it left behind goes more cleanly by its own hands
                    self.start()
            self._empty()
            self._stop()
        self._end_processes()
        self._unmount()
        if self.installed():
            self.machine.restore()
        shutil.rmtree(self.directory)
        with suppress(OSError):  # the lab's own directory, once it is empty
            self.directory.parent.rmdir()

    def _settings_path(self) -> Path:
        return self.directory / f"daemon-{self.packages.suite}.json"

    def _settings(self) -> bytes:
        size = _mtu()
        settings = {
            "hosts": [f"unix://{self.socket}"],
            "data-root": str(self.directory / "data"),
            "exec-root": str(self.run / "exec"),
            "pidfile": str(self.run / "dockerd.pid"),
            "log-opts": {"max-size": "10m", "max-file": "2"},
            "mtu": size,
            "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": str(size)}},
        }
        if self.registry:
            settings["registry-mirrors"] = [f"http://{self.registry}"]
        return json_bytes(settings)

    def _configure(self) -> bool:
        path = self._settings_path()
        self.run.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.read_bytes() == self._settings():
            return False
        for old in self.directory.glob("daemon-*.json"):
            old.unlink()
        write_atomically(path, self._settings(), 0o644)
        return True

    def _link(self) -> None:
        plugins = self.config / "cli-plugins"
        for place in (self.bin, plugins):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        for program in PROGRAMS:
            (self.bin / program).symlink_to(next(self.root.glob(f"usr/*bin/{program}")))
        for plugin in PLUGINS:
            (plugins / plugin).symlink_to(self.root / "usr/libexec/docker/cli-plugins" / plugin)
        (self.bin / "docker-init").symlink_to("/usr/bin/tini-static")

    def _live(self, record: Path, program: str) -> int | None:
        # A pid file may be older than the machine's last start, and its number another program's by now.
        with suppress(OSError, ValueError):
            pid = int(record.read_text())
            runs = Path(f"/proc/{pid}/exe").readlink().is_relative_to(self.root)
            if runs and Path(f"/proc/{pid}/comm").read_text().strip() == program and Process.of(pid):
                return pid
        return None

    def _stop(self) -> None:
        pid = self.pid()
        process = Process.of(pid) if pid else None
        if process:
            process.stop(STOP_SECONDS if answers(self.socket) else DEAF_SECONDS)

    def _forget_the_dead(self) -> None:
        containerd = self.run / "exec/containerd"
        (self.run / "dockerd.pid").unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)
        if not self._live(containerd / "containerd.pid", "containerd"):
            for path in (containerd / "containerd.pid", *containerd.glob("*.sock*")):
                path.unlink(missing_ok=True)

    def _empty(self) -> None:
        client = [str(self.bin / "docker"), "--host", f"unix://{self.socket}"]
        containers = quietly([*client, "ps", "--all", "--quiet"]).split()
        if containers:
            quietly([*client, "rm", "--force", "--volumes", *containers])
        quietly([*client, "network", "prune", "--force"])

    def _end_processes(self) -> None:
        # shims, containerd, proxies: whatever still runs a program of ours
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (directory / "exe").readlink().is_relative_to(self.directory):
                    process = Process.of(int(directory.name))
                    os.kill(int(directory.name), signal.SIGKILL)
                    if process:
                        process.wait(5)

    def _unmount(self) -> None:
        # the fifth field of mountinfo is the mount point, see proc(5)
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in reversed(points):
            if Path(point).is_relative_to(self.directory):
                quietly(["umount", "--lazy", point])


def _mtu() -> int:
    """Bytes that fit into a packet on the way out: what containers must not exceed."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        device, destination = line.split()[:2]
        if destination == "00000000":
            return int(Path(f"/sys/class/net/{device}/mtu").read_text())
    return 1500


def present(module: AnsibleModule, engine: Engine) -> tuple[bool, Found | None]:
    """Whether anything was to do, and the engine; None in check mode while there is none."""
    machine = None if engine.installed() else of_the_machine()
    if machine is None and module.check_mode:
        ready = engine.ready()
        return not ready, engine.found() if ready else None
    if machine is None and os.geteuid() != 0:
        raise EngineError("only root may start an engine, and the machine has none that answers: become root")
    changed = engine.present() if machine is None else False
    found = machine or engine.found()
    path, content = engine.directory / "environment", found.environment().encode()
    if not path.is_file() or path.read_bytes() != content:
        changed = True
        if not module.check_mode:
            write_atomically(path, content, 0o644)
    return changed, found


def shown(directory: Path, found: Found | None) -> str:
    """The state as a line of a diff."""
    return f"{directory}: {found.origin if found else 'to be installed or started'}\n"


def lines_of(changed: bool, before: str, after: str) -> Iterator[tuple[str, str]]:
    """The two sides of a diff, equal when nothing changed."""
    yield "before", before if changed else after
    yield "after", after


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "directory": {"type": "path", "required": True},
            "cache": {"type": "path", "required": True},
            "suite": {"type": "str", "required": True},
            "mirror": {"type": "str"},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    try:
        packages = Packages(Path(module.params["cache"]), module.params["suite"])
        engine = Engine(directory, packages, module.params["mirror"])
        if module.params["state"] == "absent":
            changed = directory.exists()
            if changed and not module.check_mode:
                with exclusively(directory):
                    engine.absent()
            module.exit_json(changed=changed, diff=dict(lines_of(changed, f"{directory}\n", "")))
        if module.check_mode:
            changed, found = present(module, engine)
        else:
            with exclusively(directory):
                changed, found = present(module, engine)
    except (EngineError, OSError, ValueError) as error:
        module.fail_json(msg=f"lab_engine: {error}")
    result = {name: getattr(found, name, "") for name in ("docker_host", "bin_directory", "docker_config")}
    module.exit_json(
        changed=changed,
        engine=result,
        origin=found.origin if found else "no engine yet",
        diff=dict(lines_of(changed, "", shown(directory, found))),
    )


if __name__ == "__main__":
    main()
