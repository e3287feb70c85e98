"""The lab itself (lab_engine, lab_images, lab_registry, lab_object_store): a second run does nothing, and all goes.

The engine that is up serves other tests, so what would take it away is tried with directories and ports of its own.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.deployment import free_port
from tests.end_to_end.image.conftest import LAB_SECONDS, Docker

# On a quiet machine it takes 3 s; other steps of the suite run beside it.
AGAIN_SECONDS = 120

Play = Callable[..., tuple[int, str]]


@pytest.fixture
def play(root: Path, tmp_path: Path) -> Play:
    """Runs a playbook with variables; returns how many tasks changed something (-1: it failed) and the output."""

    def run(playbook: str, *arguments: str, **variables: Any) -> tuple[int, str]:
        path = tmp_path / "variables.json"
        path.write_text(json.dumps(variables))
        command = ["ansible-playbook", f"playbooks/{playbook}.yml", "-e", f"@{path}", *arguments]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=LAB_SECONDS)
        changed = re.search(r"changed=(\d+) .* failed=0 ", done.stdout)
        return int(changed[1]) if changed and done.returncode == 0 else -1, done.stdout + done.stderr

    return run


def ours(docker: Docker) -> None:
    """Skips a test of the engine that we bring where the machine has its own."""
    if "titanic-lab" not in docker.environment["DOCKER_HOST"]:
        pytest.skip("this machine has an engine of its own, which lab_engine uses")


def test_again_changes_nothing(docker: Docker, play: Play) -> None:
    started = time.monotonic()
    changed, output = play("lab-up")
    assert changed == 0, output
    assert time.monotonic() - started < AGAIN_SECONDS


def test_engine_in_check_mode(docker: Docker, play: Play, tmp_path: Path) -> None:
    ours(docker)
    place = {"lab_engine_directory": f"{tmp_path}/engine", "lab_engine_cache": f"{tmp_path}/cache"}
    changed, output = play("lab-up", "--check", lab_engine_suite="forky", **place)
    assert changed == 1, output
    assert [path.name for path in tmp_path.iterdir()] == ["variables.json"]


def test_engine_refuses_a_path_that_no_socket_can_have(docker: Docker, play: Play, tmp_path: Path) -> None:
    changed, output = play("lab-up", lab_engine_directory=f"{tmp_path}/{'long' * 30}")
    assert changed == -1
    assert "too long a path for a socket" in output


def test_images_are_known_by_where_they_come_from(docker: Docker, play: Play, tmp_path: Path) -> None:
    """Stand-ins are no official images: asked for these, check mode says that they are missing; and the reverse."""
    recipe = docker.inspect("image", "postgres:17")["Config"].get("Labels", {}).get("titanic.lab.recipe")
    other = "pull" if recipe else "build"
    changed, output = play("lab-up", "--check", "--diff", lab_images_source=other, lab_images_cache=f"{tmp_path}/cache")
    assert changed == 1, output
    assert "+postgres:17" in output
    assert [path.name for path in tmp_path.iterdir()] == ["variables.json"]


def test_registry_comes_and_goes(docker: Docker, play: Play, tmp_path: Path) -> None:
    """With an image that can be pulled by its digest, and no second time; removed, nothing of it is left."""
    port, directory = free_port(), tmp_path / "registry"
    place: dict[str, Any] = {"lab_registry_directory": str(directory), "lab_registry_cache": f"{tmp_path}/cache"}
    place |= {"lab_registry_images": ["debian:trixie-slim"], "lab_registry_port": port}
    assert play("lab-up", "--check", **place)[0] == 1
    assert not directory.exists()
    changed, output = play("lab-up", **place)
    assert changed == 1, output
    assert play("lab-up", **place)[0] == 0
    name = f"127.0.0.1:{port}/library/debian"
    docker("pull", "--quiet", f"{name}:trixie-slim")
    digests = docker.inspect("image", f"{name}:trixie-slim")["RepoDigests"]
    digest = next(digest for digest in digests if digest.startswith(name))
    docker("rmi", f"{name}:trixie-slim")
    docker("pull", "--quiet", digest)
    docker("rmi", digest)
    # the role of the engine finds nothing to remove in a directory that is not there
    gone = {**place, "lab_engine_directory": f"{tmp_path}/none"}
    changed, output = play("lab-down", **gone)
    assert changed == 1, output
    assert not directory.exists()


def test_registry_says_that_its_port_is_taken(docker: Docker, play: Play, tmp_path: Path) -> None:
    changed, output = play("lab-up", lab_registry_directory=f"{tmp_path}/registry", lab_registry_port=5055)
    assert changed == -1
    assert "address already in use" in output


def test_object_store_comes_and_goes(play: Play, tmp_path: Path) -> None:
    """It speaks HTTPS as who it says it is, takes its account alone, and has the buckets that it was told to have."""
    directory, port = tmp_path / "store", free_port()
    place: dict[str, Any] = {
        "lab_object_store_directory": str(directory),
        "lab_object_store_cache": f"{tmp_path}/cache",
    }
    place |= {
        "lab_object_store_port": port,
        "lab_object_store_address": "127.0.0.1",
        "lab_object_store_buckets": ["one"],
    }
    assert play("lab-object-store", "--check", **place)[0] == 1
    assert not directory.exists()
    changed, output = play("lab-object-store", **place)
    assert changed == 1, output
    assert play("lab-object-store", **place)[0] == 0
    assert play("lab-object-store", **{**place, "lab_object_store_buckets": ["one", "two"]})[0] == 1
    trusted = ssl.create_default_context(cafile=str(directory / "authority.pem"))
    with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=trusted)) as connection:
        connection.request("GET", "/one/thing")
        with connection.getresponse() as answer:
            assert answer.status == 403, "nobody is let in without the account"
    assert (directory / "secret_key").stat().st_mode & 0o777 == 0o600
    taken, output = play("lab-object-store", **{**place, "lab_object_store_directory": f"{tmp_path}/other"})
    assert taken == -1
    assert "address already in use" in output
    changed, output = play("lab-object-store", lab_object_store_state="absent", **place)
    assert changed == 1, output
    assert not directory.exists()
