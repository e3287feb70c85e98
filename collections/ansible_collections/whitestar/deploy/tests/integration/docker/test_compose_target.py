# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the distribution's engine can be had and where not; tests/test_second_host.py installs it on a real host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.packages import Host, lasting_problems
from ansible_collections.whitestar.deploy.tests.helpers import (
    GOOD_PLUGINS,
    answering,
    client,
    engine_version,
    lock_options,
    module_environment,
    run_module,
)

TRIXIE = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nID=debian\n'
BOOKWORM = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'
FORKY = "PRETTY_NAME='Debian GNU/Linux forky/sid'\nID=debian\n"
NOBLE = 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n'
JAMMY = 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nVERSION_ID="22.04"\nID=ubuntu\nID_LIKE=debian\n'
FEDORA = 'PRETTY_NAME="Fedora Linux 42"\nVERSION_ID=42\nID=fedora\n'
PLUCKY = 'PRETTY_NAME="Ubuntu 25.04"\nVERSION_ID="25.04"\nID=ubuntu\n'
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
NO_COMPOSE = ("echo 'unknown command' >&2; exit 1", GOOD_PLUGINS[1])


def host(place: Path, release: str, *installed: str, half: str = "") -> Host:
    """A system of this release, with these packages installed and one half installed, as dpkg records it."""
    (place / "etc").mkdir()
    (place / "etc/os-release").write_text(release)
    (place / "var/run").mkdir(parents=True)
    (place / "var/lib/dpkg").mkdir(parents=True)
    record = "Package: {}\nStatus: install ok {}\nVersion: 1\nArchitecture: all\nMaintainer: us\nDescription: it\n\n"
    states = dict.fromkeys(installed, "installed") | ({half: "half-configured"} if half else {})
    (place / "var/lib/dpkg/status").write_text("".join(record.format(*state) for state in states.items()))
    return Host(place)


def engine_of(found: Host, program: str = "docker") -> DockerClient:
    return DockerClient(f"{found.root}/var/run/docker.sock", program, "people")


@pytest.mark.parametrize(
    ("release", "first", "compose"),
    [
        (TRIXIE, "docker.io", "docker-compose"),
        (FORKY, "docker.io", "docker-compose"),
        (NOBLE, "docker.io", "docker-compose-v2"),
        (PLUCKY, "docker.io", "docker-compose-v2"),
    ],
)
@needs_root
def test_a_release_that_is_new_enough_has_packages(place: Path, release: str, first: str, compose: str) -> None:
    found = host(place, release)
    assert found.packages()[0] == first
    assert compose in found.packages()
    assert found.missing() == list(found.packages())
    assert lasting_problems(engine_of(found), found) == []


@pytest.mark.parametrize(
    ("release", "name"),
    [
        (BOOKWORM, "Debian GNU/Linux 12 (bookworm)"),
        (JAMMY, "Ubuntu 22.04.5 LTS"),
        (FEDORA, "Fedora Linux 42"),
        ("", "this system"),
    ],
)
@needs_root
def test_a_release_that_is_too_old_or_unknown_is_refused_with_the_remedy(place: Path, release: str, name: str) -> None:
    found = host(place, release)
    (problem,) = lasting_problems(engine_of(found), found)
    assert problem.startswith(f"titanic_engine_install: {name} has no packages that are new enough (Debian ")
    assert problem.endswith("Install Docker's own, see docs.docker.com/engine/install.")
    assert found.missing() == []


@needs_root
def test_a_system_that_does_not_say_what_it_is_is_refused() -> None:
    (problem,) = Host(Path("/nowhere")).problems(engine_of(Host(Path("/nowhere"))))
    assert "this system has no packages" in problem


def test_only_what_is_installed_is_not_missing(place: Path) -> None:
    found = host(place, TRIXIE, "docker-cli", "docker-buildx", "ca-certificates", half="docker.io")
    assert found.missing() == ["docker.io", "docker-compose", "apparmor"]


@needs_root
def test_another_engine_is_not_replaced(place: Path) -> None:
    found = host(place, TRIXIE)
    (place / "usr/bin").mkdir(parents=True)
    (place / "usr/bin/dockerd").touch()
    (problem,) = lasting_problems(engine_of(found), found)
    words = f"there is another engine, {place}/usr/bin/dockerd. Start or update that one, or remove it."
    assert problem == f"titanic_engine_install: {words}"


@needs_root
def test_the_distribution_s_own_engine_is_no_other(place: Path) -> None:
    found = host(place, TRIXIE, "docker.io")
    (place / "usr/sbin").mkdir(parents=True)
    (place / "usr/sbin/dockerd").touch()
    assert lasting_problems(engine_of(found), found) == []


@needs_root
def test_a_socket_where_the_packages_have_none_is_refused(place: Path) -> None:
    found = host(place, TRIXIE)
    (problem,) = lasting_problems(DockerClient("/run/mine.sock", "docker", "people"), found)
    assert problem == (
        "titanic_engine_install: the packages' engine answers at /var/run/docker.sock, not at /run/mine.sock. "
        "Name the packages' socket in titanic_engine."
    )


AS_NOBODY = """
import json, os, sys
from pathlib import Path
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.packages import Host, lasting_problems
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
root = Path(sys.argv[1])
print(json.dumps(lasting_problems(DockerClient(f"{root}/var/run/docker.sock", "docker", "people"), Host(root))))
"""


@needs_root
def test_who_is_not_root_is_refused_with_the_remedy(place: Path) -> None:
    host(place, TRIXIE)
    command = [sys.executable, "-c", AS_NOBODY, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, env=module_environment(), check=True)
    (problem,) = json.loads(done.stdout)
    assert problem == "titanic_engine_install: only root installs packages, this is uid 65534. Set ansible_become."


@needs_root
def test_what_a_new_engine_lacks_is_installed_and_what_is_too_old_is_refused(place: Path) -> None:
    found = host(place, TRIXIE, "docker.io", "docker-cli", "docker-buildx", "apparmor", "ca-certificates")
    (place / "var/run/docker.sock").symlink_to(place / "engine.sock")
    with answering(place, engine_version("26.1.5")):
        assert lasting_problems(engine_of(found, client(place, *NO_COMPOSE)), found) == []
    (place / "engine.sock").unlink()
    with (place / "var/lib/dpkg/status").open("a") as status:
        status.write("Package: docker-compose\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n")
    with answering(place, engine_version("24.0.7")):
        (problem,) = lasting_problems(engine_of(found, client(place, *GOOD_PLUGINS)), found)
    assert problem == "titanic_engine: the engine is 24.0.7. Install Docker 25.0 or later."


def test_there_is_nothing_on_an_engine_that_is_only_planned() -> None:
    planned = DockerClient("/nowhere/docker.sock", "/nowhere/docker", "people", planned=True)
    assert planned.containers() == []
    assert planned.image("postgres:17") is None


@pytest.mark.parametrize("installs", [True, False])
def test_the_directory_is_made_and_a_good_engine_is_left_alone(
    engine: dict[str, Any], place: Path, *, installs: bool
) -> None:
    state = place / "new" / "state"
    options = {"engine": engine, "install": installs, "state_directory": str(state)}
    foreseen = run_module("compose_target", options, check=True)
    assert not state.exists()
    assert (foreseen.changed, foreseen["steps"], foreseen["planned"]) == (True, [f"make {state}"], False)
    assert run_module("compose_target", options)["steps"] == [f"make {state}"]
    for check in (True, False):
        assert not run_module("compose_target", options, check=check).changed
    state.chmod(0o777)
    assert run_module("compose_target", options).changed
    assert state.stat().st_mode & 0o7777 == 0o755


def test_what_is_no_directory_is_refused(engine: dict[str, Any], place: Path) -> None:
    (place / "file").touch()
    for wrong in (place / "file", place / "file" / "below"):
        message = run_module("compose_target", {"engine": engine, "state_directory": str(wrong)}).message
        assert message.startswith("titanic_state_directory: ")
        assert str(place / "file") in message


# Only ever in check mode: these machines belong to somebody.
def test_the_module_refuses_before_it_installs(place: Path) -> None:
    socket = f"{place}/docker.sock"
    engine = {"socket": socket, "program": "docker", "project": "people"}
    options = {"engine": engine, "install": True, "state_directory": str(place / "state")}
    message = run_module("compose_target", options, check=True).message
    assert not (place / "state").exists()
    assert message.startswith(
        f"titanic_engine_install: the packages' engine answers at /var/run/docker.sock, not at {socket}"
    )


@pytest.mark.parametrize("installs", [True, False])
def test_a_run_that_installs_is_refused_for_what_keeps_it_from_that(place: Path, *, installs: bool) -> None:
    given = lock_options(
        place / "state",
        engine={"socket": f"{place}/docker.sock", "program": "docker", "project": "people"},
        deploys=False,
        installs_engine=installs,
    )
    message = run_module("host_lock", given).message
    assert ("titanic_engine_install: the packages' engine" in message) is installs
    assert ("titanic_engine: no Docker engine answers at" in message) is not installs
    assert not (place / "state").exists()
