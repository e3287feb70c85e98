"""Backups of containers in an object store that speaks HTTPS as an authority of its own says, beside a directory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployment import free_port
from tests.end_to_end.switch.site import COMPOSE, PERSON, ROOT, ComposeSite, new_site
from tests.end_to_end.switch.test_backup import lose_database
from tests.engine import Engine

pytestmark = COMPOSE

STORE_SECONDS = 300


@pytest.fixture(scope="module")
def store(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The lab's store where containers reach it, as titanic_backup_repositories and titanic_secrets_values name it."""
    directory = tmp_path_factory.mktemp("store") / "store"
    (bridge,) = json.loads(engine("network", "inspect", "bridge"))
    own = {"directory": str(directory), "address": bridge["IPAM"]["Config"][0]["Gateway"], "port": free_port()}
    variables = {f"lab_object_store_{name}": value for name, value in own.items()}

    def run(**more: Any) -> None:
        ansible = str(Path(sys.executable).with_name("ansible-playbook"))
        words = [ansible, "playbooks/lab-object-store.yml", "-e", json.dumps(variables | more)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=STORE_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        run()
        yield {
            "place": {
                "type": "s3",
                "endpoint": f"{own['address']}:{own['port']}",
                "bucket": "titanic",
                "prefix": "one",
                "region": "us-east-1",
                "uri_style": "path",
                "authority": (directory / "authority.pem").read_text(),
            },
            "secrets": {
                "backup_s3_key": (directory / "access_key").read_text(),
                "backup_s3_key_secret": (directory / "secret_key").read_text(),
            },
        }
    finally:
        run(lab_object_store_state="absent")


@pytest.fixture(scope="module")
def own_site(engine: Engine, store: dict[str, Any]) -> Iterator[ComposeSite]:
    """A site with both kinds of repository."""
    with new_site(engine) as site:
        assert isinstance(site, ComposeSite)
        repository = site.state.with_name(f"{site.state.name}-backups")
        site.settings |= {
            "titanic_backup_enabled": True,
            "titanic_backup_repositories": [store["place"], {"path": str(repository)}],
            "titanic_backup_site": "here",
            "titanic_secrets_values": store["secrets"],
        }
        site.succeed()
        try:
            yield site
        finally:
            shutil.rmtree(repository, ignore_errors=True)


def test_each_repository_has_all_and_a_second_run_changes_nothing(own_site: ComposeSite) -> None:
    assert own_site.changed(own_site.succeed()) == 0
    own_site.succeed("--tags", "backup", "-e", "titanic_backup_kind=incremental")
    told = json.loads((own_site.state / "backup/notes/info.json").read_text())
    kinds = [(each["database"]["repo-key"], each["type"]) for each in told[0]["backup"]]
    assert sorted(kinds) == [(1, "full"), (1, "incr"), (2, "full"), (2, "incr")]
    own_site.succeed("--tags", "drill")


def test_out_of_the_store_alone_comes_what_was_acknowledged(own_site: ComposeSite) -> None:
    status, _ = own_site.ask("/people", "POST", {**PERSON, "name": "Kept Elsewhere"})
    assert status == 201
    own_site.succeed("--tags", "backup")
    directory = Path(own_site.settings["titanic_backup_repositories"][1]["path"])
    for path in directory.iterdir():
        shutil.rmtree(path)
    lose_database(own_site)
    words = ("--tags", "restore", "-e", "titanic_restore_to=latest", "-e", "titanic_confirm_restore=here")
    own_site.settings["titanic_backup_repositories"] = own_site.settings["titanic_backup_repositories"][:1]
    own_site.succeed(*words)
    _, people = own_site.ask("/people")
    assert "Kept Elsewhere" in {person["name"] for person in people}


@pytest.mark.parametrize(
    ("place", "secrets", "why"),
    [
        ({"bucket": "nobody-s"}, {}, "there is no such bucket"),
        ({}, {"backup_s3_key_secret": "wrong-secret-of-forty-characters-0123456"}, "does not take backup_s3_key"),
        ({"authority": None}, {}, "is signed by nobody who is trusted"),
        ({"endpoint": "127.0.0.1:9"}, {}, "the store does not answer"),
    ],
)
def test_a_store_that_will_not_do_is_refused_by_name(
    own_site: ComposeSite, store: dict[str, Any], place: dict[str, Any], secrets: dict[str, str], why: str
) -> None:
    before = (own_site.state / "backup/settings.json").read_bytes()
    found = {key: value for key, value in (store["place"] | place).items() if value is not None}
    told = {"titanic_backup_repositories": [found], "titanic_secrets_values": store["secrets"] | secrets}
    refused = own_site.refuse("--tags", "secrets,database", "-e", json.dumps(told))
    assert why in " ".join(refused.split())
    assert (own_site.state / "backup/settings.json").read_bytes() == before
    if secrets:
        own_site.succeed("--tags", "secrets")
