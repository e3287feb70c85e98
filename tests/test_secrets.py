"""No secret leaves its file: recognisable ones are planted, then looked for in output, arguments and other files."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment import RUN_SECONDS, Deployment, torn_down, workplace
from tests.interface import ROOT

PLANTED = {
    "owner's password": "planted-owner-4c1d'\"$(x)",
    "application's password": "planted-app-9e27 %s{{x",
    "write token": "planted-token-b05a",
    "second write token": "planted-token-77f3",
}
# What every planted secret starts with; no escaping changes it.
MARK = b"planted-"
VARIABLES = {
    "titanic_secrets_values": {
        "database_owner_password": {"__ansible_unsafe": PLANTED["owner's password"]},
        "database_app_password": {"__ansible_unsafe": PLANTED["application's password"]},
    },
    "titanic_api_write_tokens": [PLANTED["write token"]],
}
PERSON = {
    "survived": True,
    "passengerClass": 1,
    "name": "Miss. Molly Brown",
    "sex": "female",
    "siblingsOrSpousesAboard": 0,
    "parentsOrChildrenAboard": 0,
    "fare": 27.7,
}


class Watch(threading.Thread):
    """Reads the arguments and the environment of every process, again and again, and keeps those with a secret."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.found: set[str] = set()
        self.looks = 0

    def run(self) -> None:
        while not self.done.wait(0.02):
            self.looks += 1
            for path in Path("/proc").glob("[0-9]*"):
                for kind in ("cmdline", "environ"):
                    self.look(path / kind)

    def look(self, path: Path) -> None:
        try:
            text = path.read_bytes()
        except OSError:
            return
        if MARK in text:
            self.found.add(f"{path.name}: {text.replace(bytes(1), b' ').decode(errors='replace')[:200]}")


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with workplace() as place:
        new = Deployment(place, ROOT, ROOT / "inventories/local")
        new.configure(**VARIABLES)
        with torn_down(new, "site.yml", "--tags", "teardown") as deployment:
            yield deployment


@pytest.fixture(scope="module")
def output(deployment: Deployment) -> str:
    """Everything that the runs of a life printed: release, check, changed token, status."""
    watch = Watch()
    watch.start()
    texts = []
    try:
        texts.append(run(deployment))
        changed = {**VARIABLES, "titanic_api_write_tokens": [PLANTED["second write token"]]}
        deployment.configure(**changed)
        texts.append(run(deployment, "--check"))
        texts.append(run(deployment))
        texts.append(run(deployment, "--tags", "status"))
    finally:
        watch.done.set()
        watch.join()
    assert watch.looks > 100
    assert watch.found == set()
    return "\n".join(texts)


def run(deployment: Deployment, *arguments: str) -> str:
    result = deployment.run("site.yml", "-vvv", "--diff", *arguments)
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.slow
def test_output_and_processes_hold_no_secret(output: str) -> None:
    assert "PLAY RECAP" in output
    assert MARK.decode() not in output


@pytest.mark.slow
def test_the_planted_secrets_are_the_ones_in_use(deployment: Deployment, output: str) -> None:
    old, new = PLANTED["write token"], PLANTED["second write token"]
    for token, expected in ((None, 401), (old, 401), (new, 201)):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        assert deployment.ask("POST", "/people", PERSON, **headers)[0] == expected
    kept = {path.read_bytes().strip() for path in (deployment.state / "secrets").iterdir() if path.is_file()}
    assert PLANTED["owner's password"].encode() in kept
    assert PLANTED["application's password"].encode() in kept


@pytest.mark.slow
def test_files_outside_of_secrets_hold_no_secret(deployment: Deployment, output: str) -> None:
    secrets = deployment.state / "secrets"
    found = subprocess.run(
        ["grep", "-rlaF", MARK.decode(), str(deployment.state), str(deployment.place / "home")],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    ).stdout.splitlines()
    assert [path for path in found if not path.startswith(f"{secrets}/")] == []
    assert found, "nothing was searched"


@pytest.mark.slow
def test_secret_files_are_for_their_owner_alone(deployment: Deployment, output: str) -> None:
    secrets = deployment.state / "secrets"
    assert secrets.stat().st_mode & 0o077 == 0
    for path in secrets.iterdir():
        assert path.stat().st_mode & 0o177 == 0, path.name
