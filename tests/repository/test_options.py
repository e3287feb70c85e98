"""Every option that is documented works from an inventory: set to another valid value, it arrives at a module.

Each option has a host of its own that differs in nothing else from one that has none of them. The real playbooks,
roles, filters and the preflight run for all hosts; ``tests/recorder.py`` takes the modules' place and notes their
arguments. What a host's option changes in them has arrived.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.plugin_utils.names import FOLLOWING, RENAMED
from ansible_collections.whitestar.deploy.plugins.plugin_utils.required_collections import REQUIRED
from ansible_collections.whitestar.deploy.tests.helpers import certificate

from tests.deployment import EVERY_TASK
from tests.interface import COLLECTION, ROOT, options, role_path

RECORDER = ROOT / "tests/recorder.py"
# What roles call of the collections that a target stands on.
OF_COLLECTIONS = {"kubernetes.core": ["k8s"], "community.docker": ["docker_compose_v2"]}
# What tags of the site a role's options are looked for with, or which other playbook.
STAGES = {
    "api": "site api",
    "common": "site target",
    "database": "site database",
    "drift": "find_drift",
    "image": "site image",
    "maintenance": "maintain",
    "manifests": "render_manifests",
    "plan": "plan",
    "preflight": "site target",
    "rollback": "roll_back",
    "secrets": "site secrets",
    "seed": "site seed",
    "target": "site target",
    "teardown": "tear_down",
    "verify": "site verify",
}
EXTERNAL = {"host": "db.example.org"}
PASSWORDS = {"database_owner_password": "one", "database_app_password": "other"}
STORE = {"vault": {"server": "https://vault.example.org"}}
STORED = {"titanic_secrets_source": "external_secrets", "titanic_secrets_store": STORE}
NETWORKS = ["192.0.2.0/24"]
FILE = str(Path(__file__))


@dataclass(frozen=True)
class Other:
    """Another value for an option: for which provider, beside which settings, and which belong to the value itself."""

    value: Any
    provider: str = "local"
    beside: dict[str, Any] = field(default_factory=dict)
    along: dict[str, Any] = field(default_factory=dict)
    stage: str = ""


def cluster(value: Any, **more: Any) -> Other:
    """Another value for a cluster."""
    return Other(value, "kubernetes", **more)


def compose(value: Any, **more: Any) -> Other:
    """Another value for containers."""
    return Other(value, "compose", **more)


OTHERS = {
    "titanic_api_acme_directory": compose("https://acme.example.org/directory", beside={"titanic_api_tls": "acme"}),
    "titanic_api_acme_email": compose("someone@example.org", beside={"titanic_api_tls": "acme"}),
    "titanic_api_address": Other("127.0.0.2"),
    "titanic_api_compose_overrides": compose({"labels": {"some": "label"}}),
    "titanic_api_environment": Other({"TITANIC_LOG_LEVEL": "debug"}),
    "titanic_api_front": cluster("none"),
    "titanic_api_gateway": cluster({"name": "other", "namespace": "other"}, beside={"titanic_api_front": "gateway"}),
    "titanic_api_hostname": cluster("other.example.org"),
    "titanic_api_ingress_class": cluster("other"),
    "titanic_api_issuer": cluster("other", beside={"titanic_api_tls": "acme"}),
    "titanic_api_kubernetes_overrides": cluster({"Service": {"metadata": {"labels": {"some": "label"}}}}),
    "titanic_api_max_replicas": cluster(9),
    "titanic_api_metrics_from": Other(NETWORKS),
    "titanic_api_node_port": cluster(
        30500, beside={"titanic_api_front": "node_port", "titanic_target_client_networks": NETWORKS}
    ),
    "titanic_api_promises": Other([{"name": "it answers", "path": "/other"}]),
    "titanic_api_proxy_image": compose("caddy:other"),
    "titanic_api_redirect_port": compose(8081, beside={"titanic_api_tls": "internal"}),
    "titanic_api_replicas": compose(3),
    "titanic_api_scaling_metrics": cluster([{"type": "Resource", "resource": {"name": "memory"}}]),
    "titanic_api_tls": compose("internal"),
    "titanic_api_trusted_proxies": Other(NETWORKS),
    "titanic_api_write_tokens": Other(["a-token"], stage="site secrets"),
    "titanic_api_workers": Other(3),
    "titanic_cluster": cluster({"kubectl": "/opt/kubectl", "context": "other"}),
    "titanic_confirm_teardown": Other("{{ inventory_dir | basename }}"),
    "titanic_database_external": cluster(
        EXTERNAL | {"port": 6432},
        beside={
            "titanic_database_kind": "external",
            "titanic_database_external": EXTERNAL,
            "titanic_secrets_values": PASSWORDS,
        },
        stage="site secrets,database,schema",
    ),
    "titanic_database_image": compose("postgres:other"),
    "titanic_database_instances": cluster(5, beside={"titanic_database_kind": "cloudnative_pg"}),
    "titanic_database_kind": cluster("cloudnative_pg"),
    "titanic_database_kubernetes_overrides": cluster({"Service": {"metadata": {"labels": {"some": "label"}}}}),
    "titanic_database_local_account": Other("daemon"),
    "titanic_database_local_bindir": Other("/opt/postgresql/bin"),
    "titanic_database_operator_namespace": cluster("other", beside={"titanic_database_kind": "cloudnative_pg"}),
    "titanic_database_pgadmin": compose(True, stage="site secrets,database"),
    "titanic_database_pgadmin_email": compose("other@example.org", beside={"titanic_database_pgadmin": True}),
    "titanic_database_pgadmin_image": compose("pgadmin:other", beside={"titanic_database_pgadmin": True}),
    "titanic_database_pgadmin_port": compose(5051, beside={"titanic_database_pgadmin": True}),
    "titanic_database_settings": Other({"work_mem": "8MB"}),
    "titanic_database_storage": cluster("7Gi"),
    "titanic_database_storage_class": cluster("other"),
    "titanic_database_tls": compose(True, along={"titanic_secrets_database_tls": certificate("database")}),
    "titanic_engine": compose({"socket": "/run/other.sock", "program": "podman"}),
    "titanic_engine_install": compose(True),
    "titanic_image_build_arguments": compose({"VERSION": "9.8.7"}),
    "titanic_image_context": Other(str(role_path("titanic_target") / "files")),
    "titanic_image_describe": Other(["other", "version"]),
    "titanic_image_dockerfile": compose(FILE),
    "titanic_image_exclude": Other(["other"]),
    "titanic_image_platforms": compose(["linux/amd64"]),
    "titanic_image_push": compose(True),
    "titanic_image_registry_login": compose({"username": "someone", "password": "something"}),
    "titanic_image_repository": compose("other"),
    "titanic_image_requirements": Other(FILE),
    "titanic_image_scan_command": compose(["scan", "{image}"]),
    "titanic_maintenance_image": cluster("caddy:other"),
    "titanic_manifests_image": cluster("registry.example.org/titanic@sha256:cd"),
    "titanic_manifests_overlays": cluster({"prod": {"namespace": "other", "hostname": "other.example.org"}}),
    "titanic_manifests_version": cluster("2.2.2"),
    "titanic_plan": Other("/srv/other.json"),
    "titanic_project": compose("other"),
    "titanic_provider": Other("compose"),
    "titanic_secrets_database_tls": compose(certificate("database")),
    "titanic_secrets_generated": Other(["database_owner_password", "database_app_password", "other"]),
    "titanic_secrets_remote": cluster({"database_app_password": "other"}, beside=STORED),
    "titanic_secrets_source": cluster("external_secrets", along={"titanic_secrets_store": STORE}),
    "titanic_secrets_store": cluster({"vault": {"server": "https://other.example.org"}}, beside=STORED),
    "titanic_secrets_tls": compose(certificate("localhost")),
    "titanic_secrets_values": Other(PASSWORDS),
    "titanic_seed_csv": Other(FILE),
    "titanic_target_client_networks": cluster(NETWORKS),
    "titanic_target_deployer_days": cluster(7, stage="make_deployer"),
    "titanic_target_deployer_kubeconfig": cluster("/srv/other", stage="make_deployer"),
    "titanic_target_ingress_namespaces": cluster(["other"]),
    "titanic_target_kubernetes_overrides": cluster({"Namespace": {"metadata": {"labels": {"some": "label"}}}}),
    "titanic_target_namespace_adopt": cluster(True),
    "titanic_target_quota": cluster({"pods": "7"}),
    "titanic_target_scrape_namespaces": cluster(["other"]),
    "titanic_teardown_name": Other("other", beside={"titanic_confirm_teardown": "other"}),
}
BASE: dict[str, dict[str, Any]] = {
    "local": {},
    "compose": {"titanic_image_dockerfile": str(ROOT / "Dockerfile")},
    "kubernetes": {
        "titanic_image_dockerfile": str(ROOT / "Dockerfile"),
        "titanic_image_repository": "registry.example.org/titanic",
    },
}


def other(name: str, option: dict[str, Any]) -> Other:
    """Another value for an option; that of a plain one follows from its type."""
    if name in OTHERS:
        return OTHERS[name]
    default = option.get("default")
    plain: dict[str, Any] = {"bool": not default, "int": 77, "float": 0.5, "path": "/srv/other", "str": "other"}
    provider = "kubernetes" if name.startswith("titanic_manifests_") else "local"
    return Other(plain[option["type"]], provider)


def stage(role: str, name: str, found: Other) -> str:
    """The playbook that an option is looked for with, and its tags."""
    part = name.split("_")[1] if role == "titanic_common" else role.removeprefix("titanic_")
    return found.stage or STAGES.get(part, STAGES["common"])


OPTIONS = {
    name: (stage(role, name, other(name, option)), other(name, option))
    for role, own in options().items()
    if role.startswith("titanic_")
    for name, option in own.items()
}


@dataclass(frozen=True)
class Seen:
    """What the modules of a host were given, how its run ended and what was said of it."""

    noted: str
    failed: bool
    said: str


class Bench:
    """Runs playbooks of a copy of the collection whose modules only note what they are given."""

    def __init__(self, place: Path) -> None:
        self.place = place
        copy = place / "collections/ansible_collections/whitestar/deploy"
        (copy / "plugins/action").mkdir(parents=True)
        for name in ("galaxy.yml", "meta", "roles", "playbooks"):
            (copy / name).symlink_to(COLLECTION / name)
        for path in (COLLECTION / "plugins").iterdir():
            if path.name not in {"action", "__pycache__"}:
                (copy / "plugins" / path.name).symlink_to(path)
        for path in (COLLECTION / "plugins/action").glob("*.py"):
            (copy / "plugins/action" / path.name).symlink_to(path if path.stem == "validate_inputs" else RECORDER)
        for name, modules in OF_COLLECTIONS.items():
            self._collection(name, REQUIRED[name][0], modules)

    def _collection(self, name: str, version: str, modules: list[str]) -> None:
        """Have a collection of others be there, in the oldest version that is taken."""
        home = self.place / "collections/ansible_collections" / name.replace(".", "/")
        for kind in ("action", "modules"):
            (home / "plugins" / kind).mkdir(parents=True)
        for module in modules:
            (home / "plugins/action" / f"{module}.py").symlink_to(RECORDER)
            (home / "plugins/modules" / f"{module}.py").touch()
        (home / "MANIFEST.json").write_text(json.dumps({"collection_info": {"version": version}}))

    def run(self, where: str, hosts: dict[str, dict[str, Any]], state: str = "/srv/state") -> dict[str, Seen]:
        """What each host has seen of a playbook (and its tags), by its name; ``state`` is of all unless empty."""
        playbook, _, tags = where.partition(" ")
        place = self.place / re.sub(r"\W", "-", where)
        records = place / "records"
        rmtree(place, ignore_errors=True)
        records.mkdir(parents=True)
        shared = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "titanic_image_context": str(ROOT / "service"),
            **({"titanic_state_directory": state} if state else {}),
        }
        inventory = {"titanic": {"hosts": {name: shared | own for name, own in hosts.items()}}}
        (place / "inventory.yml").write_text(yaml.safe_dump(inventory))
        command = ["ansible-playbook", f"whitestar.deploy.{playbook}", "-i", str(place / "inventory.yml")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")} | {
            "ANSIBLE_COLLECTIONS_PATH": str(self.place / "collections"),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_FORKS": "4",
            "ANSIBLE_DISPLAY_OK_HOSTS": "true",
            **EVERY_TASK,
            "COLUMNS": "10000",
            "PYTHONPATH": str(ROOT),
            "PWD": str(place),
            "TEST_RECORDS": str(records),
        }
        done = subprocess.run(
            [*command, *(["--tags", tags] if tags else [])], cwd=place, env=environment, capture_output=True, text=True
        )
        output = done.stdout + done.stderr
        recap = dict(re.findall(r"^(\S+) +: ok=.* failed=(\d+)", done.stdout.partition("PLAY RECAP")[2], re.MULTILINE))
        assert set(recap) == set(hosts), output
        return {
            name: Seen(
                noted=path.read_text() if (path := records / f"{name}.jsonl").is_file() else "",
                failed=recap[name] != "0",
                said=output,
            )
            for name in hosts
        }


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A copy of the collection."""
    return Bench(tmp_path_factory.mktemp("options"))


@pytest.fixture(scope="module")
def seen(bench: Bench) -> dict[str, tuple[Seen, Seen]]:
    """For each option what a host without it and one with it have seen."""
    plain: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    mine: dict[str, tuple[str, str]] = {}
    for name, (where, found) in OPTIONS.items():
        base = {"titanic_provider": found.provider, **BASE[found.provider], **found.beside}
        known = next((host for host, own in plain[where].items() if own == base), f"plain-{len(plain[where])}")
        host = name.replace("_", "-")
        plain[where] |= {known: base, host: base | found.along | {name: found.value}}
        mine[name] = (known, host)
    runs = {where: bench.run(where, hosts) for where, hosts in plain.items()}
    return {
        name: (runs[where][known], runs[where][host])
        for name, (where, _) in OPTIONS.items()
        for known, host in [mine[name]]
    }


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_an_inventory_arrives(name: str, seen: dict[str, tuple[Seen, Seen]]) -> None:
    plain, mine = seen[name]
    refused = re.search(rf"^\s*{name}: .*$", mine.said, re.MULTILINE)
    assert not refused, refused
    assert (plain.noted, plain.failed) != (mine.noted, mine.failed), mine.said


def test_the_number_of_options(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{len(OPTIONS)} options of the roles, each set by an inventory")
    assert len(OPTIONS) > 100


# What follows from another setting unless it is set: where, the other settings, and the words in which they arrive.
FOLLOWING_SETTINGS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "titanic_verify_seconds": ("site verify", "compose", {"titanic_api_tls": "acme"}, '"seconds": 90'),
    "titanic_maintenance_image": (
        "maintain",
        "kubernetes",
        {"titanic_api_proxy_image": "caddy:theirs"},
        "caddy:theirs",
    ),
    "titanic_maintenance_drain_seconds": (
        "maintain",
        "local",
        {"titanic_api_drain_seconds": 31},
        '"drain_seconds": 31',
    ),
    "titanic_manifests_namespace": ("render_manifests", "kubernetes", {"titanic_project": 5700}, "5700-staging"),
    "titanic_manifests_hostname": ("render_manifests", "kubernetes", {"titanic_api_hostname": "a.test"}, "dev.a.test"),
    "titanic_manifests_version": ("render_manifests", "kubernetes", {}, "2.1.0"),
}


def test_what_is_not_set_follows_from_another_setting(bench: Bench) -> None:
    runs: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for name, (where, provider, settings, _) in FOLLOWING_SETTINGS.items():
        runs[where][name.replace("_", "-")] = {"titanic_provider": provider, **BASE[provider], **settings}
    found = {host: seen for where, hosts in runs.items() for host, seen in bench.run(where, hosts).items()}
    for name, (*_, words) in FOLLOWING_SETTINGS.items():
        assert words in found[name.replace("_", "-")].noted, name


# Where a deployment is, who serves there and what from: what many roles need.
EVERYWHERE = {
    "titanic_state_directory": "/srv/NAME",
    "titanic_project": "NAME-project",
    "titanic_engine": {"socket": "/run/NAME.sock", "program": "docker"},
    "titanic_cluster": {"kubectl": "kubectl", "context": "NAME-context"},
    "titanic_api_hostname": "NAME.example.org",
    "titanic_database_name": "NAME_rows",
    "titanic_database_owner": "NAME_owner",
    "titanic_database_user": "NAME_user",
    "titanic_database_local_bindir": "/opt/NAME/bin",
    "titanic_database_local_account": "NAME",
}


def everywhere(name: str) -> dict[str, Any]:
    """These settings, with a name in each of them."""
    found: dict[str, Any] = yaml.safe_load(yaml.safe_dump(EVERYWHERE).replace("NAME", name))
    return found


@pytest.mark.parametrize(
    "where", ["site", "roll_back", "maintain", "find_drift", "show_status", "stop", "start", "tear_down"]
)
def test_a_shared_setting_arrives_in_every_role(bench: Bench, where: str) -> None:
    hosts = {
        f"{provider}-{name}": {"titanic_provider": provider, **BASE[provider], **everywhere(f"its{name}")}
        | {"titanic_drift_tolerated": True, "titanic_confirm_teardown": "it", "titanic_teardown_name": "it"}
        for provider in BASE
        for name in ("one", "two")
    }
    seen = bench.run(where, hosts)
    for provider in BASE:
        one, two = (seen[f"{provider}-{name}"] for name in ("one", "two"))
        assert (one.failed, two.failed) == (False, False), one.said
        assert "itsone" in one.noted
        assert [line for line in two.noted.splitlines() if "itsone" in line] == []
        assert len(one.noted.splitlines()) == len(two.noted.splitlines())
        assert one.noted.count("itsone") == two.noted.count("itstwo")


def test_an_old_name_is_taken_with_a_warning_that_names_the_new_one(bench: Bench) -> None:
    hosts: dict[str, dict[str, Any]] = {}
    for old, new in RENAMED.items():
        (option,) = (own[new] for own in options().values() if new in own)
        found = other(new, option)
        base = {"titanic_provider": found.provider, **BASE[found.provider]}
        hosts |= {old.replace("_", "-"): base | {old: found.value}, new.replace("_", "-"): base | {new: found.value}}
    seen = bench.run("site target", hosts, state="")
    for old, new in RENAMED.items():
        before, now = seen[old.replace("_", "-")], seen[new.replace("_", "-")]
        assert before.noted == now.noted
        assert not before.failed
        assert f"{old}: this setting is called {new} now: rename it" in before.said


def test_an_old_name_that_says_something_else_than_the_new_one_is_refused(bench: Bench) -> None:
    both = {"titanic_provider": "local", "titanic_target_state_directory": "/srv/another"}
    found = bench.run("site target", {"both": both})["both"]
    assert found.failed
    assert "titanic_target_state_directory: titanic_state_directory, its new name, has another value" in found.said


def test_what_no_user_may_set_is_refused_by_name(bench: Bench) -> None:
    handed = [
        "__titanic_preflight_deploys",
        "__titanic_schema_image",
        "__titanic_verify_release",
        "__titanic_common_proxy",
    ]
    mine = {"titanic_provider": "local", **dict.fromkeys([*FOLLOWING, *handed], "mine")}
    found = bench.run("site", {"mine": mine})["mine"]
    assert found.failed
    assert found.noted == ""
    assert [name for name in FOLLOWING if f"{name}: it follows from other settings: " not in found.said] == []
    assert [name for name in handed if f"{name}: it is the collection's own: leave it out" not in found.said] == []
