"""The image of the service: what is in it, what it weighs, how it runs, and that one tree gives the same layers."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import socket
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.end_to_end.image.conftest import EPOCH, LABEL, Docker

# Figures that decision 9 promises: the whole, and what the service adds to an interpreter.
WHOLE_BYTES = 100_000_000
ADDED_BYTES = 45_000_000
TOOLS = {
    "sh",
    "bash",
    "dash",
    "busybox",
    "apt",
    "apt-get",
    "dpkg",
    "pip",
    "pip3",
    "gcc",
    "cc",
    "ld",
    "curl",
    "wget",
    "perl",
}
HARDENED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
PASSWORD = "image-test-5ecret"
PASSENGERS = 887
HEALTHY_SECONDS = 120
STOP_SECONDS = 25
# What the image's own Python finds in it: Python packages, Debian's notes, the interpreter, the distribution.
INVENTORY = """
import importlib.metadata, json, pathlib, platform
packages = [[d.metadata["Name"].lower().replace("_", "-"), d.version] for d in importlib.metadata.distributions()]
notes = [path.read_text().splitlines() for path in pathlib.Path("/var/lib/dpkg/status.d").iterdir()]
fields = [dict(line.split(": ", 1) for line in lines if ": " in line and line[0] != " ") for lines in notes]
system = platform.freedesktop_os_release()
print(json.dumps({
    "pypi": packages,
    "deb": [[note["Package"], note["Version"]] for note in fields],
    "generic": [["python", platform.python_version()]],
    "system": [[system["ID"], system["VERSION_ID"]]],
}))
"""

Service = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def members(docker: Docker, image: dict[str, Any]) -> dict[str, tarfile.TarInfo]:
    """Every file of the image by its path, read from its layers."""
    return {f"/{entry.name}": entry for _, entry in entries(docker, image["name"])}


def layers(docker: Docker, name: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a saved image: its layers and what describes them."""
    saved = subprocess.run(["docker", "save", name], env=docker.environment, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.isfile() else None
            if file:
                yield entry.name, file.read()


def entries(docker: Docker, name: str) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The layer and the entry of each file of an image."""
    for layer, content in layers(docker, name):
        if content[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for entry in archive:
                    yield layer, entry


@pytest.fixture(scope="module")
def bill(docker: Docker, root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image's bill of materials."""
    return bill_of(docker, root, root / "service", tmp_path_factory.mktemp("bill"))


@pytest.fixture(scope="module")
def network(docker: Docker) -> str:
    """A network with no way out."""
    return docker("network", "create", "--internal", "--label", LABEL, f"{LABEL.replace('=', '-')}-inside")


@pytest.fixture(scope="module")
def password(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secrets") / "password"
    path.write_text(PASSWORD)
    path.chmod(0o644)
    return path


@pytest.fixture(scope="module")
def database(docker: Docker, network: str, password: Path) -> str:
    """PostgreSQL in a container of the official name, with the service's two roles."""
    settings = ["POSTGRES_PASSWORD_FILE=/run/password", "POSTGRES_USER=titanic_owner", "POSTGRES_DB=titanic"]
    options = [word for setting in settings for word in ("--env", setting)]
    mount = ["--volume", f"{password}:/run/password:ro", "--tmpfs", "/var/lib/postgresql/data"]
    name = docker("run", "--detach", "--label", LABEL, "--network", network, *mount, *options, "postgres:17")
    ready = ["exec", name, "pg_isready", "--quiet", "--host", "127.0.0.1"]  # over TCP it answers once it is set up
    wait(lambda: docker.run(*ready).returncode == 0, 60, lambda: docker("logs", name))
    role = f"CREATE ROLE titanic_app LOGIN PASSWORD '{PASSWORD}'"
    docker("exec", "--interactive", name, "psql", "--quiet", "titanic", "titanic_owner", text=role)
    return str(docker.inspect("container", name)["NetworkSettings"]["Networks"].popitem()[1]["IPAddress"])


@pytest.fixture(scope="module")
def command(network: str, database: str, password: Path, image: dict[str, Any]) -> Callable[..., list[str]]:
    """The words of docker run that a hardened container of the image takes, with the database's settings."""
    secrets = ("TITANIC_DATABASE_PASSWORD_FILE", "TITANIC_DATABASE_OWNER_PASSWORD_FILE")
    settings = [f"TITANIC_DATABASE_HOST={database}", "PORT=9000", *(f"{name}=/run/password" for name in secrets)]

    def words(*arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        environment = [word for setting in settings for word in ("--env", setting)]
        own = ["--label", LABEL, "--network", network, "--volume", f"{password}:/run/password:ro", *HARDENED]
        return ["run", *own, *environment, *options, image["name"], *arguments]

    return words


@pytest.fixture(scope="module")
def seeded(docker: Docker, command: Callable[..., list[str]]) -> dict[str, Any]:
    """What seeding said, after migrating, each in a container of its own as a deployment does it."""
    docker(*command("titanic-api", "migrate", options=("--rm",)))
    said: dict[str, Any] = json.loads(docker(*command("titanic-api", "seed", options=("--rm",))))
    return said


@pytest.fixture
def service(docker: Docker, seeded: dict[str, Any], command: Callable[..., list[str]]) -> Iterator[str]:
    """A running container of the image that is healthy."""
    name = docker(*command(options=("--detach",)))
    wait(lambda: health(docker, name) == "healthy", HEALTHY_SECONDS, lambda: docker("logs", name))
    yield name
    docker("rm", "--force", name)


def health(docker: Docker, name: str) -> str:
    """The engine's word on the health of a container."""
    return str(docker.inspect("container", name)["State"]["Health"]["Status"])


def wait(condition: Callable[[], bool], seconds: float, evidence: Callable[[], str]) -> None:
    """Waits until a condition holds; fails with the evidence when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s: {evidence()}"
        time.sleep(0.2)


def address(docker: Docker, name: str) -> str:
    """Where a container can be reached from this machine."""
    networks: dict[str, dict[str, str]] = docker.inspect("container", name)["NetworkSettings"]["Networks"]
    return next(iter(networks.values()))["IPAddress"]


def ask(host: str, path: str) -> Any:
    """The JSON that the service answers to GET, which must succeed."""
    connection = http.client.HTTPConnection(host, 9000, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    value = json.loads(answer.read())
    connection.close()
    return value


def python(docker: Docker, name: str, code: str) -> str:
    """What a line of Python prints inside of a container."""
    return docker("exec", name, "python", "-c", code)


def test_configuration(image: dict[str, Any]) -> None:
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] is None
    assert config["Cmd"] == ["titanic-api", "serve"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert config["Healthcheck"]["StartInterval"] > 0


def test_labels(image: dict[str, Any]) -> None:
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in image["Config"]["Labels"].items()}
    assert labels["version"] == "9.8.7"
    assert labels["revision"] == "0123abc"
    assert labels["licenses"] == "MIT"
    assert labels["source"].startswith("https://")
    assert labels["base.name"] == "python:3.13-slim-trixie"
    assert image["Created"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(EPOCH))))


def test_no_tools(members: dict[str, tarfile.TarInfo]) -> None:
    """No shell, no package manager, no compiler, no installer of Python packages, and no way to become root."""
    programs = {PurePosixPath(path).name for path, entry in members.items() if not entry.isdir() and entry.mode & 0o111}
    assert programs & TOOLS == set()
    packages = {PurePosixPath(path).parts[-1] for path, entry in members.items() if entry.isdir()}
    assert packages & {"pip", "setuptools", "ensurepip", "wheel", "tests"} == set()
    assert [path for path, entry in members.items() if entry.mode & (stat.S_ISUID | stat.S_ISGID)] == []


def test_nobody_can_write(members: dict[str, tarfile.TarInfo]) -> None:
    """Nothing belongs to the account that the service runs as, except its place for what is gone with the container."""
    own = [path for path, entry in members.items() if entry.uid == 10001]
    assert own == ["/run/titanic"]
    writable = [path for path, entry in members.items() if entry.mode & 0o002 and not entry.issym()]
    assert writable == ["/tmp"]


def test_everything_is_compiled(members: dict[str, tarfile.TarInfo]) -> None:
    sources = [path for path in members if path.endswith(".py") and "/templates/" not in path]
    compiled = {path.rpartition("/")[2].partition(".")[0] for path in members if path.endswith(".pyc")}
    assert len(sources) > 1000
    assert [path for path in sources if PurePosixPath(path).stem.partition(".")[0] not in compiled] == []


def test_scanners_find_the_packages(members: dict[str, tarfile.TarInfo]) -> None:
    assert "/var/lib/dpkg/status.d/libc6" in members
    assert any("/flask-" in path and path.endswith(".dist-info") for path in members)
    assert "/etc/os-release" in members


def test_the_bill_of_materials_lists_what_is_in_the_image(
    docker: Docker, root: Path, image: dict[str, Any], bill: str
) -> None:
    found = json.loads(bill)
    components = [found["metadata"]["component"], *found["components"]]
    listed: dict[str, set[tuple[str, str]]] = {}
    for component in components:
        kind = component.get("purl", "pkg:system/").removeprefix("pkg:").partition("/")[0]
        listed.setdefault(kind, set()).add((component["name"].lower().replace("_", "-"), component["version"]))
    there = json.loads(docker("run", "--rm", "--label", LABEL, image["name"], "python", "-c", INVENTORY))
    for kind in ("pypi", "deb", "generic", "system"):
        assert sorted(map(list, listed[kind])) == sorted(there[kind]), kind
    assert len(listed["pypi"]) > 15
    assert {"libc6", "libssl3t64"} <= {name for name, _ in listed["deb"]}
    # Each wheel is one that the lock allows, but for those that are built.
    lock = (root / "service/requirements.txt").read_text()
    hashes = {c["name"].lower(): c["hashes"][0]["content"] for c in components if "pkg:pypi/" in c.get("purl", "")}
    assert {name for name, value in hashes.items() if f"sha256:{value}" not in lock} == {"gunicorn_h1c", "titanic-api"}
    flask = next(entry for entry in found["dependencies"] if entry["ref"].startswith("pkg:pypi/flask@"))
    assert any(name.startswith("pkg:pypi/werkzeug@") for name in flask["dependsOn"])


def test_the_bill_of_materials_is_valid_and_always_the_same(
    docker: Docker, root: Path, bill: str, tmp_path: Path
) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.replace('"library"', '"liberry"')) is not None
    assert bill_of(docker, root, copied(root, tmp_path), tmp_path, "--no-cache-filter", "bill") == bill


def test_sizes(docker: Docker, image: dict[str, Any]) -> None:
    listed = docker("history", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image["name"]).splitlines()
    sizes = {line.split()[2]: int(line.split()[0]) for line in listed if " COPY " in line}
    assert set(sizes) == {"/root.new/", "/dependencies/", "/service/"}
    assert sizes["/dependencies/"] + sizes["/service/"] <= ADDED_BYTES
    assert image["Size"] <= WHOLE_BYTES


def test_migrates_and_seeds(seeded: dict[str, Any]) -> None:
    assert (seeded["inserted"], seeded["total"]) == (PASSENGERS, PASSENGERS)


def test_serves_from_a_read_only_root_without_privileges(docker: Docker, service: str) -> None:
    host = address(docker, service)
    assert ask(host, "/healthz") == {"status": "ok"}
    assert len(ask(host, "/people")) == PASSENGERS
    status = python(docker, service, "print(open('/proc/1/status').read())")
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert found["Uid"].split() == ["10001"] * 4
    assert found["Gid"].split() == ["10001"] * 4
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
    assert found["NoNewPrivs"] == "1"
    assert "Read-only file system" in docker.run("exec", service, "python", "-c", "open('/tmp/x', 'w')").stderr
    assert docker.run("exec", service, "sh", "-c", "true").returncode != 0


def test_unhealthy_when_it_does_not_listen(docker: Docker, service: str) -> None:
    check = ["python", "-IS", "/opt/venv/bin/titanic-healthcheck"]
    assert docker.run("exec", service, *check).returncode == 0
    assert docker.run("exec", "--env", "PORT=9001", service, *check).returncode == 1


def test_drains(docker: Docker, service: str) -> None:
    """A request that has begun when SIGTERM comes is answered; then the process ends with 0, in time."""
    person = {"survived": True, "passengerClass": 1, "name": "Drained", "sex": "female", "age": 30, "fare": 1.5}
    body = json.dumps({**person, "siblingsOrSpousesAboard": 0, "parentsOrChildrenAboard": 0}).encode()
    head = f"POST /people HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((address(docker, service), 9000), 10) as connection:
        connection.sendall(head.encode() + body[:10])
        time.sleep(0.3)
        started = time.monotonic()
        docker("kill", "--signal", "TERM", service)
        time.sleep(0.5)
        connection.sendall(body[10:])
        assert connection.recv(200).startswith(b"HTTP/1.1 201 ")
    assert docker("wait", service) == "0"
    assert time.monotonic() - started < STOP_SECONDS


@pytest.mark.slow
def test_same_tree_same_image(docker: Docker, root: Path, image: dict[str, Any], tmp_path: Path) -> None:
    """Built again from nothing, from another place and with other times of files."""
    copy = copied(root, tmp_path)
    again = docker.build(root, copy, "again", "--no-cache")
    assert again["RootFS"]["Layers"] == image["RootFS"]["Layers"]
    assert again["Id"] == image["Id"]


def test_what_is_not_the_service_stays_out(docker: Docker, root: Path, image: dict[str, Any], tmp_path: Path) -> None:
    """Secrets and tests beside the source reach neither layers nor history; new code leaves the other layers alone."""
    copy = copied(root, tmp_path)
    for name in (".env", "password.txt", "tests/password.txt", "src/.env", "src/titanic_api/.env"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(PASSWORD)
    module = copy / "src/titanic_api/__init__.py"
    module.write_text(module.read_text() + "CHANGED = True\n")
    changed = docker.build(root, copy, "changed")
    assert changed["RootFS"]["Layers"][:2] == image["RootFS"]["Layers"][:2]
    assert changed["RootFS"]["Layers"][2] != image["RootFS"]["Layers"][2]
    for name, content in layers(docker, changed["name"]):
        assert PASSWORD.encode() not in content, name
    assert PASSWORD not in docker("history", "--no-trunc", changed["name"])


def bill_of(docker: Docker, root: Path, context: Path, directory: Path, *options: str) -> str:
    """What the Dockerfile's stage with the bill of materials holds."""
    words = ["--quiet", "--target", "sbom", "--output", str(directory), *options]
    docker("build", *words, "--file", str(root / "Dockerfile"), str(context))
    return (directory / "sbom.cdx.json").read_text()


def copied(root: Path, directory: Path) -> Path:
    """The service's directory at another place, all files with the present time."""
    copy = directory / "service"
    shutil.copytree(root / "service", copy, copy_function=shutil.copy, ignore=shutil.ignore_patterns("*_cache", ".*"))
    return copy
