"""An image is judged, then pushed with credentials that nobody sees; one that is refused goes nowhere."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployment import free_port
from tests.end_to_end.image.conftest import Docker
from tests.end_to_end.switch.site import ComposeSite, new_site
from tests.engine import Engine
from tests.secret_scan import Watch

PROGRAM = Path("/var/lib/titanic-lab/registry/root/usr/bin/docker-registry")  # as lab_registry unpacks it
ACCOUNT, PASSWORD = "alice", "planted-registry-3d"
# bcrypt with few rounds, which is what this registry reads.
HTPASSWD = "alice:$2b$04$YqMXa8.LIDR9una9iCRfbeLeiWjsaDfubN82kADvTS8aSuHOCOKeC\n"
BASIC = base64.b64encode(f"{ACCOUNT}:{PASSWORD}".encode())
START_SECONDS = 90


@pytest.fixture(scope="module")
def registry(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a registry that wants a password."""
    if not PROGRAM.is_file():
        pytest.skip("the lab's registry is needed: make lab")
    directory, address = tmp_path_factory.mktemp("registry"), f"127.0.0.1:{free_port()}"
    (directory / "htpasswd").write_text(HTPASSWD)
    settings = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "auth": {"htpasswd": {"realm": "tests", "path": str(directory / "htpasswd")}},
        "http": {"addr": address},
    }
    (directory / "config.json").write_text(json.dumps(settings))
    command = [str(PROGRAM), "serve", str(directory / "config.json")]
    with subprocess.Popen(command, env={"OTEL_TRACES_EXPORTER": "none"}, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + START_SECONDS
        while asked(address, "/v2/", login=False) != 401:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield address
        process.terminate()


def asked(address: str, path: str, *, login: bool = True) -> int:
    """The status that a registry answers with; 0 if nothing answers."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Basic {BASIC.decode()}"} if login else {})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@pytest.fixture(scope="module")
def site(docker: Docker) -> Iterator[ComposeSite]:
    """A site whose image has been described, so that building it again takes no time."""
    with new_site(Engine.found()) as site:
        assert isinstance(site, ComposeSite)
        yield site


@pytest.fixture
def pushed(site: ComposeSite, registry: str, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Variables that name the registry, with the password in a file of its own."""
    repository = f"{registry}/{site.project}"
    yield {"titanic_image_repository": repository, "titanic_image_push": True}
    site.engine.clear(site.project, repository)


def with_login(place: Path, variables: dict[str, Any], password: str) -> list[str]:
    """Arguments of a run; a file, since arguments can be read by every user of the machine."""
    own: dict[str, Any] = {"titanic_image_registry_login": {"username": ACCOUNT, "password": password}}
    own["ansible_remote_tmp"] = str(place / "remote")
    (place / "variables.json").write_text(json.dumps(variables | own))
    return ["--tags", "image", "-e", f"@{place / 'variables.json'}"]


def test_pushed_with_credentials_that_nobody_sees(
    site: ComposeSite, registry: str, pushed: dict[str, Any], tmp_path: Path
) -> None:
    own = site.engine("version", "--format", "{{.Server.Os}}/{{.Server.Arch}}")
    pushed |= {"titanic_image_platforms": [own], "titanic_image_scan_command": ["grep", "pkg:pypi/flask@", "{sbom}"]}
    watch = Watch(PASSWORD.encode())
    watch.start()
    output = site.succeed(*with_login(tmp_path, pushed, PASSWORD), "-vvv", "--diff")
    again = site.succeed(*with_login(tmp_path, pushed, PASSWORD))
    watch.done.set()
    watch.join()
    assert (site.changed(output), site.changed(again)) == (1, 0)
    (record,) = (json.loads(path.read_text()) for path in site.state.glob("images/*/image.json"))
    assert record["reference"].startswith(f"{registry}/{site.project}@sha256:")
    assert asked(registry, f"/v2/{site.project}/manifests/{record['reference'].rpartition('@')[2]}") == 200
    for secret in (PASSWORD.encode(), BASIC):
        assert secret.decode() not in output
        places = [site.state, tmp_path / "remote", Path.home() / ".docker", Path(site.engine.configuration or "/none")]
        command = ["grep", "-rlaF", secret.decode(), *(str(path) for path in places if path.exists())]
        assert subprocess.run(command, capture_output=True, text=True).stdout == ""
    assert watch.looks > 20
    assert not watch.found, watch.found


def test_what_another_controller_has_pushed_is_the_release(
    site: ComposeSite, pushed: dict[str, Any], tmp_path: Path
) -> None:
    """Another controller is one with neither record nor image."""
    pushed["titanic_image_repository"] += "-shared"
    login = with_login(
        tmp_path, pushed | {"titanic_image_scan_command": ["grep", "pkg:pypi/flask@", "{sbom}"]}, PASSWORD
    )
    records = []
    for built in (True, False):
        for old in site.state.glob("images/*"):
            shutil.rmtree(old)
        site.engine.clear(site.project, pushed["titanic_image_repository"])
        assert site.changed(site.succeed(*login)) == 1
        (directory,) = site.state.glob("images/*")
        assert (directory / "provenance.json").exists() == built
        assert (directory / "sbom.cdx.json").exists()
        records.append(json.loads((directory / "image.json").read_text()))
    assert records[0] == records[1]
    assert site.changed(site.succeed(*login)) == 0


def test_a_wrong_password_is_refused_before_anything_is_built(
    site: ComposeSite, registry: str, pushed: dict[str, Any], tmp_path: Path
) -> None:
    site.change_service("# never built")
    before = sorted(site.state.glob("images/*"))
    output = site.refuse(*with_login(tmp_path, pushed, "planted-registry-wrong"))
    assert f"titanic_image_registry_login: {registry} does not take it" in output
    assert "401 Unauthorized" in output
    assert "planted-registry" not in output
    assert sorted(site.state.glob("images/*")) == before


def test_what_the_scanner_refuses_is_not_pushed(
    site: ComposeSite, registry: str, pushed: dict[str, Any], tmp_path: Path
) -> None:
    site.change_service("# refused")
    pushed["titanic_image_repository"] += "-refused"
    scan = ["sh", "-c", "echo CVE-1912-0415 in {sbom}; exit 3"]
    pushed |= {"titanic_image_scan_command": scan}
    checked = site.succeed(*with_login(tmp_path, pushed, PASSWORD), "--check")
    assert site.changed(checked) == 1
    assert "CVE-1912-0415" not in checked
    output = site.refuse(*with_login(tmp_path, pushed, PASSWORD))
    assert "titanic_image_scan_command: sh -c " in output
    assert "CVE-1912-0415 in " in output
    assert asked(registry, f"/v2/{site.project}-refused/tags/list") == 404
    assert site.engine.images(pushed["titanic_image_repository"]) == []


def test_several_platforms_need_a_registry_and_a_builder(
    site: ComposeSite, pushed: dict[str, Any], tmp_path: Path
) -> None:
    several = {"titanic_image_platforms": ["linux/amd64", "linux/arm64", "linux/s390x"]}
    output = site.refuse("--tags", "image", "-e", json.dumps(several))
    assert "titanic_image_platforms: only a registry keeps an image for several platforms" in output
    builder = site.engine("buildx", "inspect")
    if "linux/s390x" in builder:
        pytest.skip("this builder makes every platform")
    output = site.refuse("--check", "--tags", "image", "-e", json.dumps(pushed | several))
    assert "titanic_image_platforms: the builder" in output
    assert "linux/s390x" in output
