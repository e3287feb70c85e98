"""A bare Debian over SSH gets an engine and the whole site, as documented, and this machine gets nothing of it.

The host is a container with an address of its own, an SSH server and Python. In it Debian's own engine is installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deployment import CONFIRMED, Deployment, workplace
from tests.end_to_end.switch.site import PERSON
from tests.engine import Engine
from tests.interface import ROOT

PROJECT = f"titanic-test-{uuid.uuid4().hex[:8]}"
STATE = Path("/var/lib") / PROJECT
DOCKERFILE = """FROM debian:trixie-slim
RUN --mount=type=tmpfs,target=/var/cache/apt --mount=type=tmpfs,target=/var/lib/apt/lists \\
    mkdir -p /var/cache/apt/archives/partial /var/lib/apt/lists/partial /run/sshd /etc/docker && apt-get update \\
    && apt-get install --yes --no-install-recommends openssh-server python3
CMD ["/usr/sbin/sshd", "-D", "-e"]
"""
# There is no registry that the host could fetch them from.
IMAGES = ("python:3.13-slim-trixie", "postgres:17", "caddy:2")
PORT = 8080
# An address that is kept for documentation, so that nobody has it (RFC 5737).
NOBODY = "198.51.100.1"
# Ansible gives a connection ten seconds.
UNREACHABLE_SECONDS = 100
COMMAND_SECONDS = 300

# The image is built there from nothing, beside whatever else this machine does.
RUN_SECONDS = 900

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * RUN_SECONDS)]


@dataclass(frozen=True)
class Host:
    """The container, and what is needed to reach it; ``place`` is where the keys are."""

    engine: Engine
    address: str
    place: Path

    def options(self, key: str = "key", known: str = "known_hosts") -> list[str]:
        """Options of ssh that make it use this key and these known hosts, and nothing of the user's."""
        settings = {"UserKnownHostsFile": self.place / known, "GlobalKnownHostsFile": "/dev/null"}
        settings |= {"StrictHostKeyChecking": "yes", "IdentitiesOnly": "yes", "IdentityAgent": "none"}
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return ["-F", "/dev/null", "-i", str(self.place / key), *words]

    def command(self, words: str) -> list[str]:
        """The command that runs ``words`` there."""
        return ["ssh", *self.options(), f"root@{self.address}", words]

    def run(self, words: str) -> str:
        """Standard output of ``words`` run there, which must succeed."""
        done = subprocess.run(self.command(words), capture_output=True, text=True, timeout=COMMAND_SECONDS)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def has(self, words: str) -> bool:
        """Whether ``words`` succeed there."""
        return subprocess.run(self.command(words), capture_output=True, timeout=COMMAND_SECONDS).returncode == 0

    def inventory(self, address: str, **how: str) -> Path:
        """The documents' inventory of another host, with this address, these keys and the checkout's paths."""
        page = (ROOT / "docs/user/compose.md").read_text()
        (text,) = re.findall(r"## Another host\n.*?```yaml\n(.*?)```", page, re.DOTALL)[:1]
        found = yaml.safe_load(text)
        (host,) = found["titanic"]["hosts"].values()
        host |= {"ansible_host": address, "ansible_ssh_common_args": " ".join(self.options(**how))}
        found["titanic"]["vars"]["titanic_image_dockerfile"] = str(ROOT / "Dockerfile")
        path = self.place / f"{'-'.join(['hosts', address, *how.values()])}.yml"
        path.write_text(yaml.safe_dump(found))
        return path


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The engine of this machine, on which the host is a container."""
    try:
        found = Engine.found()
    except LookupError as reason:
        pytest.skip(str(reason))
    if missing := [name for name in (*IMAGES, "debian:trixie-slim") if found.run("image", "inspect", name).returncode]:
        pytest.skip(f"the engine has no {', '.join(missing)}: pull them, or run make lab")
    return found


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def configure_service(engine: Engine, name: str, place: Path) -> None:
    """What a host of this kind needs before it gets an engine: its owner would do the same."""
    # The service wants more open files than a container may be allowed to have.
    (place / "default").write_text("ulimit() { :; }\n")
    engine("cp", str(place / "default"), f"{name}:/etc/default/docker")
    # Packets of the containers in it must fit into its own network's.
    size = engine("exec", name, "cat", "/sys/class/net/eth0/mtu")
    networks = {"bridge": {"com.docker.network.driver.mtu": size}}
    (place / "daemon.json").write_text(json.dumps({"mtu": int(size), "default-network-opts": networks}))
    engine("cp", str(place / "daemon.json"), f"{name}:/etc/docker/daemon.json")


@pytest.fixture(scope="module")
def host(engine: Engine) -> Iterator[Host]:
    """The bare host: no engine, no state, one key that may come in."""
    name = f"{PROJECT}-host"
    with workplace() as place:
        make_key(place / "key")
        make_key(place / "other")
        (place / "none").touch()
        (place / "image").mkdir()
        (place / "image/Dockerfile").write_text(DOCKERFILE)
        try:
            engine("build", "--quiet", "--tag", name, str(place / "image"))
            # An overlay needs a file system that is none itself.
            engine("network", "create", name)
            words = ["--detach", "--privileged", "--init", "--volume", "/var/lib/docker", "--network", name]
            engine("run", *words, "--name", name, name)
            engine("cp", str(place / "key.pub"), f"{name}:/root/.ssh/authorized_keys")
            configure_service(engine, name, place)
            (container,) = engine.inspect("container", name)
            address = str(container["NetworkSettings"]["Networks"][name]["IPAddress"])
            public = engine("exec", name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
            (place / "known_hosts").write_text(f"{address} {public}\n")
            yield Host(engine, address, place)
        finally:
            engine.run("rm", "--force", "--volumes", name)
            engine.run("network", "rm", name)
            engine.run("rmi", "--force", name)


class Site(Deployment):
    """The deployment on that host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        super().__init__(host.place, ROOT, host.inventory(host.address))
        self.state, self.port, self.address, self.seconds = STATE, PORT, host.address, RUN_SECONDS
        self.configure()

    def configure(self, **variables: Any) -> None:
        """The same with names that nobody else has, and with an engine that is installed."""
        own = {"titanic_project": PROJECT, "titanic_image_repository": PROJECT}
        own["titanic_image_context"] = str(ROOT / "service")
        super().configure(**own, **{"titanic_engine_install": True, **variables})

    def succeed(self, *arguments: str) -> str:
        """Output of a run of the site that must succeed."""
        done = self.run("site.yml", *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def left(self) -> list[str]:
        """What is on this machine of what belongs on the other one."""
        return self.host.engine.left(PROJECT, PROJECT) + ([str(STATE)] if STATE.exists() else [])


@pytest.fixture(scope="module")
def site(host: Host) -> Site:
    return Site(host)


def changed(output: str) -> int:
    """How many tasks a run's recap says it changed."""
    return int(re.findall(r"changed=(\d+)", output)[0])


@pytest.mark.parametrize(
    ("address", "how", "words"),
    [
        (NOBODY, {}, f'"{NOBODY}". Make sure this host can be reached over ssh: '),
        ("", {"key": "other"}, "Permission denied (publickey"),
        ("", {"known": "none"}, "Host key verification failed"),
    ],
    ids=["no-such-host", "not-our-key", "not-its-key"],
)
def test_a_host_that_cannot_be_reached_is_named_at_once(
    site: Site, address: str, how: dict[str, str], words: str
) -> None:
    # Before all others, since Ansible keeps a connection open for a minute, which then needs no key.
    wrong = site.host.inventory(address or site.address, **how)
    started = time.monotonic()
    done = site.run("site.yml", "-i", str(wrong))
    print(done.stdout)
    assert done.returncode == 4, done.stdout
    assert time.monotonic() - started < UNREACHABLE_SECONDS
    (said,) = re.findall(r"^\[ERROR\]: (.*?)^Origin:", done.stdout, re.DOTALL | re.MULTILINE)
    assert words in said
    assert len(said.splitlines()) <= 2
    assert "unreachable=1" in done.stdout
    assert "changed=0" in done.stdout


def test_without_the_switch_a_host_without_an_engine_is_refused(site: Site) -> None:
    site.configure(titanic_engine_install=False)
    done = site.run("site.yml")
    site.configure()
    assert done.returncode == 2, done.stdout
    assert "no Docker engine answers at /var/run/docker.sock" in done.stdout
    assert "titanic_engine_install=true" in done.stdout


def test_a_check_of_the_bare_host_says_what_would_be_installed(site: Site) -> None:
    output = site.succeed("--check", "--diff")
    for name in ("docker.io", "docker-cli", "docker-compose", "docker-buildx"):
        assert f"+install {name}\n" in output
    assert changed(output) > 5, "the rest of the site is foretold too"
    assert not site.host.has("command -v dockerd docker")
    assert not site.host.has(f"test -e {STATE}")


def test_the_engine_is_installed(site: Site) -> None:
    assert changed(site.succeed("--tags", "target")) >= 1
    assert "Debian" in site.host.run("cat /etc/os-release")
    assert site.host.has("docker version && docker compose version && docker buildx version")


@pytest.fixture(scope="module")
def images(site: Site) -> None:
    """The base images, brought to the host's engine as a tar."""
    with subprocess.Popen([site.host.engine.program, "save", *IMAGES], stdout=subprocess.PIPE) as saving:
        subprocess.run(site.host.command("docker load"), stdin=saving.stdout, check=True, timeout=COMMAND_SECONDS)
    assert saving.returncode == 0


def test_the_site_is_deployed_there_and_nothing_here(site: Site, images: None) -> None:
    site.succeed()
    status, people = site.ask("GET", "/people")
    assert (status, len(people)) == (200, 887)
    assert site.left() == []
    assert len(site.host.run(f"docker ps --quiet --filter label=com.docker.compose.project={PROJECT}").split()) == 3
    assert changed(site.succeed()) == 0


def test_a_look_and_a_way_back_are_asked_for_there(site: Site, images: None) -> None:
    """There is one release alone, so that what the host says of it is all that is done."""
    assert "887" in site.succeed("--tags", "status")
    refused = site.run("site.yml", "--tags", "rollback")
    assert refused.returncode == 2, refused.stdout
    assert "is the oldest recorded one" in " ".join(refused.stdout.split())


def test_a_killed_engine_is_started_by_the_next_run_and_has_lost_nothing(site: Site, images: None) -> None:
    status, person = site.ask("POST", "/people", PERSON)
    assert status == 201
    # What it ran goes on without it, and is nobody's then.
    site.host.run("pkill -9 -x dockerd; pkill -9 -x containerd; sleep 1; ! docker version")
    output = site.succeed("--diff")
    assert "+start the engine" in output
    assert "install docker" not in output
    assert site.ask("GET", f"/people/{person['uuid']}")[0] == 200
    assert len(site.ask("GET", "/people")[1]) == 888


def test_a_teardown_leaves_the_engine_and_nothing_else(site: Site, images: None) -> None:
    site.succeed("--tags", "teardown", "-e", CONFIRMED)
    assert site.host.run("docker ps --all --quiet; docker volume ls --quiet") == ""
    assert site.host.run(f"docker image ls --quiet {PROJECT}") == ""
    assert PROJECT not in site.host.run("docker network ls")
    assert not site.host.has(f"test -e {STATE}")
    assert site.left() == []
