# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles make of the settings of backups: nothing where they are off, on Compose and on a cluster alike."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.tests.helpers import COLLECTION

ROLES = COLLECTION / "roles"
PLACE = {"type": "s3", "endpoint": "s3.example.org:9000", "bucket": "titanic", "authority": "PEM"}
ON = {"titanic_backup_enabled": True, "inventory_dir": "/site/prod"}
OPERATED = {"titanic_provider": "kubernetes", "titanic_database_kind": "cloudnative_pg"}


# In a process of its own: the collections that a process knows are settled when it first asks for one.
RENDER = """
import json, sys
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
asked = json.load(sys.stdin)
init_plugin_loader([asked["collections"]])
loader, variables = DataLoader(), {}
for path in asked["files"]:
    variables |= loader.load_from_file(path, trusted_as_template=True)
templar = Templar(loader=loader, variables=variables | asked["given"])
print(json.dumps(templar.template(templar.available_variables[asked["name"]])))
"""


def rendered(name: str, **given: Any) -> Any:
    """The value of a variable of the roles, with these of the user's."""
    roles = ("titanic_common", "titanic_database", "titanic_backup", "titanic_secrets")
    own = {"titanic_provider": "compose", "titanic_state_directory": "/srv/titanic", "titanic_project": "titanic"}
    search = {"ansible_search_path": [str(ROLES / "titanic_database"), str(ROLES / "titanic_backup")]}
    asked = {
        "name": name,
        "collections": str(COLLECTION.parents[2]),
        "files": [str(ROLES / role / part / "main.yml") for role in roles for part in ("defaults", "vars")],
        "given": {**own, **search, "inventory_hostname": "here", **given},
    }
    words = [sys.executable, "-c", RENDER]
    done = subprocess.run(words, input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_where_backups_are_off_the_container_is_what_it_was() -> None:
    """Whatever is different makes a new container of everybody's database in an upgrade."""
    assert rendered("__titanic_database_definition") == {
        "command": ["postgres"],
        "user": "999:999",
        "networks": ["data"],
        "restart": "unless-stopped",
        "stop_grace_period": "60s",
        "mem_limit": "512m",
        "cpus": 1.0,
        "pids_limit": 200,
        "shm_size": "128m",
        "tmpfs": ["/tmp:mode=1777,noexec,nosuid", "/var/run/postgresql:mode=0755,uid=999,gid=999"],
        "volumes": ["database:/var/lib/postgresql/data"],
        "environment": {
            "POSTGRES_PASSWORD_FILE": "/srv/titanic/secrets/database_superuser_password",
            "POSTGRES_INITDB_ARGS": "--data-checksums --auth-host=scram-sha-256",
        },
        "healthcheck": {
            "test": ["CMD", "pg_isready", "--quiet", "--host=127.0.0.1", "--username=postgres"],
            "interval": "10s",
            "timeout": "3s",
            "retries": 3,
            "start_period": "60s",
            "start_interval": "500ms",
        },
    }


@pytest.mark.parametrize(
    ("places", "networks"),
    [([{"path": "/srv/backups"}], ["data"]), ([{"path": "/srv/backups"}, PLACE], ["data", "backup"])],
)
def test_where_they_are_on_the_container_archives(places: list[dict[str, str]], networks: list[str]) -> None:
    on = {**ON, "titanic_backup_repositories": places}
    server = rendered("__titanic_backup_server", **on)
    definition = rendered("__titanic_database_definition", **on, __titanic_database_archived=server)
    assert "--archive_command=titanic-pgbackrest push %p %f" in definition["command"]
    assert definition["networks"] == networks
    assert "/srv/backups:/var/lib/titanic-repository/1" in definition["volumes"]
    assert "/srv/titanic/secrets/backup:/run/titanic-backup:ro" in definition["volumes"]
    assert not any("titanic-repository/2" in mount for mount in definition["volumes"])
    schedule = rendered("__titanic_backup_service", **on)
    assert "database:/var/lib/postgresql/data:ro" in schedule["volumes"]
    assert schedule["networks"] == networks[-1:]
    assert rendered("__titanic_backup_compose_settings", **on)["site"] == "prod"


def kinds(objects: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for thing in objects:
        found.setdefault(thing["kind"], []).append(thing)
    return found


def test_an_operator_is_told_nothing_where_they_are_off() -> None:
    found = kinds(rendered("__titanic_database_objects", **OPERATED))
    assert sorted(found) == ["Cluster", "NetworkPolicy"]
    (cluster,) = found["Cluster"]
    assert "backup" not in cluster["spec"]
    assert cluster["spec"]["postgresql"]["parameters"] == {}


@pytest.mark.parametrize("trusted", [False, True])
def test_an_operator_is_told_to_back_up_what_it_runs(trusted: bool) -> None:
    place = PLACE if trusted else {key: value for key, value in PLACE.items() if key != "authority"}
    on = {**ON, **OPERATED, "titanic_backup_repositories": [place], "titanic_backup_keep_days": 14}
    told = rendered("__titanic_backup_operated", **on)
    found = kinds(rendered("__titanic_database_objects", **on, __titanic_database_archived=told))
    (cluster,) = found["Cluster"]
    store = cluster["spec"]["backup"]["barmanObjectStore"]
    assert cluster["spec"]["backup"]["retentionPolicy"] == "14d"
    assert (store["destinationPath"], store["endpointURL"]) == ("s3://titanic/", "https://s3.example.org:9000")
    assert ("endpointCA" in store) == trusted
    assert cluster["spec"]["postgresql"]["parameters"]["archive_timeout"] == "50s"
    (schedule,) = found["ScheduledBackup"]
    assert schedule["spec"]["cluster"] == {"name": "titanic-database"}
    assert schedule["spec"]["schedule"] == "0 0 0 * * *"
    assert ("Secret" in found) == trusted
    (servers,) = [each for each in found["NetworkPolicy"] if each["metadata"]["name"] == "titanic-database-cluster"]
    assert {"ports": [{"protocol": "TCP", "port": 9000}]} in servers["spec"]["egress"]
    assert rendered("__titanic_secrets_readers", **on)["titanic-backup"] == ["backup_s3_key", "backup_s3_key_secret"]
