"""Recognisable secrets for a deployment, a life in which they are used, and the places where they must not turn up."""

from __future__ import annotations

import subprocess
import threading
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from tests.deployment import RUN_SECONDS, Deployment
from tests.end_to_end.switch.site import copy_service

# What every planted secret starts with; no escaping changes it, and no other run on this machine has it.
RUN = f"planted-{uuid.uuid4().hex[:8]}-"
MARK = RUN.encode()
PLANTED = {
    "owner's password": f"{RUN}owner-4c1d'\"$(x)",
    "application's password": f"{RUN}app-9e27 %s{{{{x",
    "write token": f"{RUN}token-b05a",
    "second write token": f"{RUN}token-77f3",
}
VARIABLES: dict[str, Any] = {
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


# Fifty looks are a second.
LOOKS_AT_NEW = 50


class Watch(threading.Thread):
    """Reads the arguments and the environment of every process, and keeps those with a secret.

    A process is read again and again while it is new, which it is until it executes what it was made for, and once a
    second afterwards.
    """

    def __init__(self, mark: bytes = MARK) -> None:
        super().__init__(daemon=True)
        self.mark = mark
        self.done = threading.Event()
        self.found: set[str] = set()
        self.looks = 0
        self.looked_at: Counter[str] = Counter()

    def run(self) -> None:
        while not self.done.wait(0.02):
            self.looks += 1
            there = {path.name: path for path in Path("/proc").glob("[0-9]*")}
            for pid, path in there.items():
                if self.looked_at[pid] < LOOKS_AT_NEW or self.looks % LOOKS_AT_NEW == 0:
                    for kind in ("cmdline", "environ"):
                        self.look(path / kind)
            self.looked_at = Counter({pid: self.looked_at[pid] + 1 for pid in there})

    def look(self, path: Path) -> None:
        try:
            text = path.read_bytes()
        except OSError:
            return
        if self.mark in text:
            self.found.add(f"{path.name}: {text.replace(bytes(1), b' ').decode(errors='replace')[:200]}")


# A release that prints every secret that it can read, in several spellings, and ends.
TELLTALE = """
import json, os, pathlib, sys, urllib.parse
if os.environ.get("TITANIC_BIND"):
    for name, value in os.environ.items():
        if name.startswith("TITANIC_") and name.endswith("_FILE") and pathlib.Path(value).is_file():
            for secret in pathlib.Path(value).read_text().splitlines():
                print(name, secret, repr(secret), json.dumps([secret]), urllib.parse.quote(secret), file=sys.stderr)
    sys.exit("broken on purpose")
"""


def live(deployment: Deployment, **variables: Any) -> str:
    """What the runs of a life print: release, check, changed token, status, failed release; processes are watched."""
    watch = Watch()
    watch.start()
    texts = []
    try:
        deployment.configure(**VARIABLES, **variables)
        texts.append(run(deployment))
        changed = {**VARIABLES, "titanic_api_write_tokens": [PLANTED["second write token"]]}
        deployment.configure(**changed, **variables)
        texts.append(run(deployment, "--check"))
        texts.append(run(deployment))
        texts.append(run(deployment, "--tags", "status"))
        texts.append(fail(deployment, **changed, **variables))
    finally:
        watch.done.set()
        watch.join()
    assert watch.looks > 10
    assert not watch.found, watch.found
    return "\n".join(texts)


def run(deployment: Deployment, *arguments: str) -> str:
    """The output of a run that says and compares as much as it can."""
    result = deployment.run(deployment.site, "-vvv", "--diff", *arguments)
    assert result.returncode == 0, result.stdout
    return result.stdout


def fail(deployment: Deployment, **variables: Any) -> str:
    """The output of a run whose release tells all that it knows; what it printed itself is taken away again."""
    context = copy_service(deployment.place / "telltale")
    with (context / "src/titanic_api/__init__.py").open("a") as package:
        package.write(TELLTALE)
    deployment.configure(**variables, titanic_image_context=str(context))
    result = deployment.run(deployment.site, "-vvv", "--diff", "--tags", "api")
    deployment.configure(**variables)
    assert result.returncode != 0, result.stdout
    assert "broken on purpose" in result.stdout
    # On Compose its log is gone with its container.
    for log in (deployment.state / "log").glob("*.log"):
        if MARK in log.read_bytes():
            log.unlink()
    return result.stdout


def assert_told_without_secrets(deployment: Deployment, *names: str) -> None:
    """The failed release printed the secrets of these names, and its failure report has the names in their place."""
    (failure_report,) = (deployment.state / "capsules").iterdir()
    text = failure_report.read_text()
    assert "broken on purpose" in text
    for name in names:
        assert text.count(f"[{name}]") >= 4, text
    assert MARK.decode() not in text


def assert_in_use(deployment: Deployment) -> None:
    """Only the newest token writes, and the passwords are those that were planted."""
    old, new = PLANTED["write token"], PLANTED["second write token"]
    for token, expected in ((None, 401), (old, 401), (new, 201)):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        assert deployment.ask("POST", "/people", PERSON, **headers)[0] == expected
    kept = {path.read_bytes().strip() for path in (deployment.state / "secrets").iterdir() if path.is_file()}
    assert PLANTED["owner's password"].encode() in kept
    assert PLANTED["application's password"].encode() in kept


def assert_only_in_secret_files(deployment: Deployment, *places: Path) -> None:
    """Of all files of the deployment, and below ``places``, those of ``secrets`` alone hold what was planted."""
    secrets = deployment.state / "secrets"
    searched = [str(path) for path in (deployment.state, deployment.place / "home", *places)]
    command = ["grep", "-rlaF", MARK.decode(), *searched]
    found = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS).stdout.splitlines()
    assert [path for path in found if not path.startswith(f"{secrets}/")] == []
    assert found, "nothing was searched"


def assert_for_owners_alone(deployment: Deployment) -> None:
    """Nobody but its owner can read a secret file."""
    secrets = deployment.state / "secrets"
    # One of those that root runs as another user may come by, and see nothing.
    assert secrets.stat().st_mode & 0o066 == 0
    for path in secrets.iterdir():
        assert path.stat().st_mode & 0o177 == 0, path.name
