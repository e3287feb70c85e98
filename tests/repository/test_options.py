"""Every option that is documented works from an inventory: set to another valid value, it arrives at a module.

The real playbooks, roles, filters and the preflight run for hosts of an inventory; ``tests/recorder.py`` takes the
modules' place and notes their arguments. Options whose values are words that nothing else has share a host, and have
arrived if their words have. Any other option, and one whose words have not, gets a host of its own that differs in
nothing else from one without it; what it changes in the arguments has arrived.
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
    "backup": "site database",
    "common": "site target",
    "database": "site database",
    "drift": "find_drift",
    "drill": "site database",
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
BACKUPS = {"titanic_backup_enabled": True, "titanic_backup_repositories": [{"path": "/srv/backups"}]}
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


def backups(value: Any, stage: str = "") -> Other:
    """Another value where backups are on."""
    return Other(value, beside=BACKUPS, stage=stage)


OTHERS = {
    "titanic_api_acme_directory": compose("https://acme.example.org/directory", beside={"titanic_api_tls": "acme"}),
    "titanic_api_acme_email": compose("someone@example.org", beside={"titanic_api_tls": "acme"}),
    "titanic_api_address": Other("127.0.0.2"),
    "titanic_api_compose_overrides": compose({"labels": {"some": "label"}}),
    "titanic_api_environment": Other({"TITANIC_LOG_LEVEL": "debug"}),
    "titanic_api_front": cluster("none"),
    "titanic_api_gateway": cluster({"name": "other", "namespace": "other"}, beside={"titanic_api_front": "gateway"}),
    "titanic_api_hostname": cluster("other.example.org"),
    "titanic_api_ingress_class": cluster("other-class"),
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
    "titanic_api_scaling_metrics": cluster([{"type": "Pods", "pods": {"metric": {"name": "other-metric"}}}]),
    "titanic_api_tls": compose("internal"),
    "titanic_api_trusted_proxies": Other(["198.51.100.0/24"]),
    "titanic_api_write_tokens": Other(["a-token"], stage="site secrets"),
    "titanic_api_workers": Other(3),
    "titanic_backup_compression": backups("none"),
    "titanic_backup_enabled": Other(
        True, along={"titanic_backup_repositories": BACKUPS["titanic_backup_repositories"]}
    ),
    "titanic_backup_full_days": backups(5.5),
    "titanic_backup_keep_days": backups(40.5),
    "titanic_backup_keep_full": backups(909),
    "titanic_backup_kind": backups("full", "back_up"),
    "titanic_backup_name": backups("before-import", "back_up"),
    "titanic_backup_python": backups("/opt/python"),
    "titanic_backup_repositories": backups([{"path": "/srv/others"}]),
    "titanic_backup_rpo_seconds": backups(30),
    "titanic_backup_schedule": backups("weekly"),
    "titanic_backup_site": backups("other-site"),
    "titanic_backup_wal_mebibytes": backups(2048),
    "titanic_cluster": cluster({"kubectl": "/opt/kubectl", "context": "other-context"}),
    "titanic_confirm_restore": backups("{{ inventory_dir | basename }}", "restore"),
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
    "titanic_database_storage_class": cluster("other-class"),
    "titanic_database_tls": compose(True, along={"titanic_secrets_database_tls": certificate("database")}),
    "titanic_drill_max_days": backups(12.5),
    "titanic_engine": compose({"socket": "/run/other.sock", "program": "podman"}),
    "titanic_engine_install": compose(True),
    "titanic_image_build_arguments": compose({"VERSION": "9.8.7"}),
    "titanic_image_context": Other(str(role_path("titanic_target") / "files")),
    "titanic_image_describe": Other(["other-program", "tell"]),
    "titanic_image_dockerfile": compose(FILE),
    "titanic_image_exclude": Other(["other-file"]),
    "titanic_image_platforms": compose(["linux/amd64"]),
    "titanic_image_push": compose(True),
    "titanic_image_registry_login": compose({"username": "someone", "password": "something"}),
    "titanic_image_repository": compose("other-repository"),
    "titanic_image_requirements": Other(str(ROOT / "README.md")),
    "titanic_image_scan_command": compose(["scan", "{image}"]),
    "titanic_image_verify": Other({"key": "/srv/other.pub"}),
    "titanic_maintenance_image": cluster("caddy:other"),
    "titanic_manifests_image": cluster("registry.example.org/titanic@sha256:cd"),
    "titanic_manifests_overlays": cluster({"prod": {"namespace": "other", "hostname": "other.example.org"}}),
    "titanic_manifests_version": cluster("2.2.2"),
    "titanic_plan": Other("/srv/other.json"),
    "titanic_project": compose("other-project"),
    "titanic_provider": Other("compose"),
    "titanic_restore_system": backups("7123456789012345678", "restore"),
    "titanic_restore_to": backups("latest", "restore"),
    "titanic_secrets_database_tls": compose(certificate("database")),
    "titanic_secrets_generated": Other(["database_owner_password", "database_app_password", "other_password"]),
    "titanic_secrets_remote": cluster({"database_app_password": "other"}, beside=STORED),
    "titanic_secrets_source": cluster("external_secrets", along={"titanic_secrets_store": STORE}),
    "titanic_rotate": Other(["database"], beside={"titanic_rotate": ["superuser"]}, stage="rotate_secrets"),
    "titanic_secrets_overlap_seconds": Other(60),
    "titanic_secrets_store": cluster({"vault": {"server": "https://other.example.org"}}, beside=STORED),
    "titanic_secrets_tls": compose(certificate("localhost")),
    "titanic_secrets_values": Other(PASSWORDS),
    "titanic_seed_csv": Other(FILE),
    "titanic_target_client_networks": cluster(NETWORKS),
    "titanic_target_deployer_days": cluster(7, stage="make_deployer"),
    "titanic_target_deployer_kubeconfig": cluster("/srv/other", stage="make_deployer"),
    "titanic_target_ingress_namespaces": cluster(["other-ingress"]),
    "titanic_target_kubernetes_overrides": cluster({"Namespace": {"metadata": {"labels": {"some": "label"}}}}),
    "titanic_target_namespace_adopt": cluster(True),
    "titanic_target_quota": cluster({"pods": "7"}),
    "titanic_target_scrape_namespaces": cluster(["other-scraper"]),
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


NUMBERS = {name: number for number, name in enumerate(sorted(name for own in options().values() for name in own), 100)}


def other(name: str, option: dict[str, Any]) -> Other:
    """Another value for an option; that of a plain one follows from its type, and is that of no other option."""
    if name in OTHERS:
        return OTHERS[name]
    number, text = NUMBERS[name], f"other{NUMBERS[name]}"
    plain: dict[str, Any] = {
        "bool": not option.get("default"),
        "int": 7000 + number,
        "float": 0.5 + number / 1000,
        "path": f"/srv/{text}",
        "str": text,
    }
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


def words(value: Any) -> set[str]:
    """The texts and the numbers in a value that may tell it from others, as JSON has them; of a template nothing."""
    if isinstance(value, dict | list):
        return {word for item in (value.values() if isinstance(value, dict) else value) for word in words(item)}
    if isinstance(value, str):
        return set() if "{{" in value else {json.dumps(value)[1:-1]}
    return {str(value)} if isinstance(value, float) or (isinstance(value, int) and value > 100) else set()


def shares(name: str) -> bool:
    """Whether an option may have a host together with others that need the same beside them: it chooses nothing."""
    found = OPTIONS[name][1]
    (option,) = (own[name] for own in options().values() if name in own)
    chooses = option["type"] == "bool" or "choices" in option
    return bool(words(found.value)) and not (found.along or chooses)


@dataclass(frozen=True)
class Seen:
    """What the modules of a host were given, how its run ended and what was said of it."""

    noted: str
    failed: bool
    said: str

    def has(self, word: str) -> bool:
        """Whether a module was given this word, or this number."""
        return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", self.noted) is not None


class Bench:
    """Runs playbooks of a copy of the collection whose modules only note what they are given."""

    def __init__(self, place: Path) -> None:
        self.place = place
        copy = place / "collections/ansible_collections/whitestar/deploy"
        (copy / "plugins/action").mkdir(parents=True)
        for name in ("galaxy.yml", "meta", "playbooks"):
            (copy / name).symlink_to(COLLECTION / name)
        for part in COLLECTION.glob("roles/*/*"):
            self._role(part, copy / part.relative_to(COLLECTION))
        for path in (COLLECTION / "plugins").iterdir():
            if path.name not in {"action", "__pycache__"}:
                (copy / "plugins" / path.name).symlink_to(path)
        for path in (COLLECTION / "plugins/action").glob("*.py"):
            (copy / "plugins/action" / path.name).symlink_to(path if path.stem == "validate_inputs" else RECORDER)
        for name, modules in OF_COLLECTIONS.items():
            self._collection(name, REQUIRED[name][0], modules)

    def _role(self, part: Path, link: Path) -> None:
        """A part of a role, without the specifications: each run's preflight has held the inputs against all of them.

        Ansible would hold them against those of each role once more, in two of five tasks.
        """
        link.parent.mkdir(parents=True, exist_ok=True)
        if part.name == "meta":
            link.mkdir()
            part, link = part / "main.yml", link / "main.yml"
        link.symlink_to(part)

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


@dataclass
class Hosts:
    """Hosts by the playbook that they are seen by, each kind of settings once."""

    bench: Bench
    settings: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    found: dict[tuple[str, str], Seen] = field(default_factory=dict)

    def add(self, where: str, name: str, settings: dict[str, Any]) -> tuple[str, str]:
        """Have a host with these settings, or the one that has been seen with them: its key in ``found``."""
        self.settings[where][name] = settings
        return where, name

    def plain(self, where: str, base: dict[str, Any]) -> tuple[str, str]:
        """A host with these settings alone."""
        own = self.settings[where]
        name = next((host for host, settings in own.items() if settings == base), f"plain-{len(own)}")
        return self.add(where, name, base)

    def look(self) -> None:
        """Run the playbooks for all hosts that have not been seen."""
        for where, hosts in self.settings.items():
            if new := {name: own for name, own in hosts.items() if (where, name) not in self.found}:
                self.found |= {(where, name): seen for name, seen in self.bench.run(where, new).items()}


@pytest.fixture(scope="module")
def seen(bench: Bench) -> dict[str, tuple[Seen, Seen]]:
    """For each option what a host without it and one with it have seen, and what one where something follows has."""
    hosts = Hosts(bench)
    # By playbook, provider and what is beside them, as JSON.
    together: dict[tuple[str, str, str], dict[str, Any]] = defaultdict(dict)
    keys: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {}

    def alone(name: str) -> None:
        where, found = OPTIONS[name]
        base = {"titanic_provider": found.provider, **BASE[found.provider], **found.beside}
        settings = base | found.along | {name: found.value}
        keys[name] = hosts.plain(where, base), hosts.add(where, name.replace("_", "-"), settings)

    for name, (where, found) in OPTIONS.items():
        if shares(name):
            together[where, found.provider, json.dumps(found.beside, sort_keys=True)][name] = found.value
        else:
            alone(name)
    for (where, provider, beside), values in together.items():
        if len(values) == 1:
            alone(*values)
            continue
        base = {"titanic_provider": provider, **BASE[provider], **json.loads(beside)}
        shared = hosts.plain(where, base), hosts.add(where, f"together-{len(hosts.settings[where])}", base | values)
        keys |= dict.fromkeys(values, shared)
    for name, (where, provider, settings, _) in FOLLOWING_SETTINGS.items():
        host = hosts.add(where, f"following-{name}", {"titanic_provider": provider, **BASE[provider], **settings})
        keys[f"following {name}"] = host, host
    hosts.look()
    for values in together.values():
        for name in values if len(values) > 1 else ():
            plain, mine = (hosts.found[key] for key in keys[name])
            # A word of two options tells of neither, and one that is there anyway of none.
            own = words(values[name]).difference(*(words(value) for option, value in values.items() if option != name))
            own = {word for word in own if not plain.has(word)}
            if not own or not all(mine.has(word) for word in own):
                alone(name)
    hosts.look()
    return {name: (hosts.found[plain], hosts.found[mine]) for name, (plain, mine) in keys.items()}


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


def test_what_is_not_set_follows_from_another_setting(seen: dict[str, tuple[Seen, Seen]]) -> None:
    for name, (*_, words) in FOLLOWING_SETTINGS.items():
        assert words in seen[f"following {name}"][0].noted, name


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
    # Two of each provider where all roles are; elsewhere each is compared with those of the others.
    names = {f"{provider}{name}": provider for provider in BASE for name in ("one", "two")[: 1 + (where == "site")]}
    hosts = {
        name: {"titanic_provider": provider, **BASE[provider], **everywhere(f"its{name}")}
        | {"titanic_drift_tolerated": True, "titanic_confirm_teardown": "it", "titanic_teardown_name": "it"}
        for name, provider in names.items()
    }
    seen = bench.run(where, hosts)
    for name, found in seen.items():
        assert not found.failed, found.said
        assert f"its{name}" in found.noted
        assert [each for each in names if each != name and f"its{each}" in found.noted] == []
    for provider in BASE if where == "site" else ():
        one, two = (seen[f"{provider}{name}"].noted for name in ("one", "two"))
        assert len(one.splitlines()) == len(two.splitlines())
        assert one.count(f"its{provider}one") == two.count(f"its{provider}two")


def test_an_old_name_is_taken_with_a_warning_that_names_the_new_one(bench: Bench) -> None:
    hosts = {
        f"{when}-{provider}": {"titanic_provider": provider, **BASE[provider]}
        for provider in BASE
        for when in ("before", "now")
    }
    for old, new in RENAMED.items():
        (option,) = (own[new] for own in options().values() if new in own)
        found = other(new, option)
        hosts[f"before-{found.provider}"][old] = hosts[f"now-{found.provider}"][new] = found.value
    seen = bench.run("site target", hosts, state="")
    for provider in BASE:
        before, now = seen[f"before-{provider}"], seen[f"now-{provider}"]
        assert before.noted == now.noted
        assert not before.failed
    for old, new in RENAMED.items():
        assert f"{old}: this setting is called {new} now. Rename it." in seen["before-local"].said


def test_an_old_name_that_says_something_else_than_the_new_one_is_refused(bench: Bench) -> None:
    both = {"titanic_provider": "local", "titanic_target_state_directory": "/srv/another"}
    found = bench.run("site target", {"both": both})["both"]
    assert found.failed
    assert "titanic_target_state_directory: titanic_state_directory, its new name, has another value" in found.said


def test_what_no_user_may_set_is_refused_by_name(bench: Bench) -> None:
    handed = [
        "__titanic_preflight_run",
        "__titanic_schema_image",
        "__titanic_verify_release",
        "__titanic_common_proxy",
    ]
    mine = {"titanic_provider": "local", **dict.fromkeys([*FOLLOWING, *handed], "mine")}
    found = bench.run("site", {"mine": mine})["mine"]
    assert found.failed
    assert found.noted == ""
    assert [
        name for name in FOLLOWING if f"{name}: this variable follows from other settings. " not in found.said
    ] == []
    assert [
        name for name in handed if f"{name}: this variable is the collection's own. Leave it out." not in found.said
    ] == []
