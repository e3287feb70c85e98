"""The collections that a target stands on are had by who needs them, whole, from a locked wheel; bounds agree."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.plugin_utils.required_collections import REQUIRED

from bin.wheel_collections import COLLECTIONS, providers
from tests.interface import COLLECTION, ROOT

# A run of the part that is tested, in a process of its own, as often as it is asked to stop in the middle.
RUN = """
import os, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from bin import bootstrap, wheel_collections
place = Path({place!r})
bootstrap.ROOT, bootstrap.VENV = place, Path(sys.prefix)
bootstrap.COLLECTIONS, bootstrap.SCRATCH = place / ".ansible/collections", place / ".ansible/unpacking"
real = wheel_collections.replace
def replace(new, old, scratch):
    real(new, old, scratch)
    if os.environ.get("STOP") == new.name:
        print("stopped", flush=True)
        time.sleep(60)
wheel_collections.replace = replace
print(bootstrap.prepare_collections(os.environ))
"""


class Place:
    """A checkout with nothing but the lock of a wheel, which lies in a directory that pip is told of."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "requirements").mkdir()
        (place / "wheels").mkdir()
        self.release("99.0")

    @property
    def home(self) -> Path:
        return self.place / ".ansible/collections/ansible_collections"

    def release(self, version: str) -> None:
        """Have a wheel of this version, and lock it."""
        wheel = make_wheel(self.place / "wheels", version)
        self.lock(version, hashlib.sha256(wheel.read_bytes()).hexdigest())

    def lock(self, version: str, digest: str) -> None:
        (self.place / "requirements/wheel.txt").write_text(f"ansible=={version} --hash=sha256:{digest}\n")

    def start(self, **more: str) -> subprocess.Popen[str]:
        told = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.place / "wheels"), "PIP_CONFIG_FILE": os.devnull}
        return subprocess.Popen(
            [sys.executable, "-c", RUN.format(root=str(ROOT), place=str(self.place))],
            env=os.environ | told | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self) -> str:
        return self.start().communicate(timeout=100)[0]

    def left(self) -> list[str]:
        return [path.name for path in (self.place / ".ansible").iterdir()]

    def versions(self) -> dict[str, str]:
        """The version of each collection that is there."""
        found = {name: self.home / name / "MANIFEST.json" for name in COLLECTIONS}
        return {
            name: json.loads(path.read_text())["collection_info"]["version"]
            for name, path in found.items()
            if path.is_file()
        }


def make_wheel(place: Path, version: str) -> Path:
    """A package with four collections, whose files say a version."""
    names = [*COLLECTIONS, "community/general"]
    about = f"ansible-{version}.dist-info"
    parts = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: ansible\nVersion: {version}\nRequires-Python: >=3.12\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
        f"{about}/licenses/COPYING": "a licence\n",
    }
    for name in names:
        manifest = json.dumps({"collection_info": {"version": version}})
        parts |= {f"ansible_collections/{name}/MANIFEST.json": manifest, f"ansible_collections/{name}/plugins/a.py": ""}
    path = place / f"ansible-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_three_are_unpacked_with_the_licence_and_nothing_else(place: Place) -> None:
    assert "kubernetes.core, community.docker, community.library_inventory_filtering_v1: unpacked" in place.run()
    assert place.versions() == dict.fromkeys(COLLECTIONS, "99.0")
    found = {str(path.relative_to(place.home.parent)) for path in place.home.parent.glob("*.dist-info/**/*")}
    assert found == {f"ansible-99.0.dist-info/{name}" for name in ("METADATA", "licenses", "licenses/COPYING")}
    assert not (place.home / "community/general").exists()
    assert place.left() == ["collections"]
    before = {path: path.stat().st_mtime_ns for path in place.home.rglob("*")}
    assert place.run() == "False\n", "a second run does nothing, and says nothing"
    assert {path: path.stat().st_mtime_ns for path in place.home.rglob("*")} == before


def test_a_wheel_of_another_hash_is_refused_and_nothing_of_it_unpacked(place: Place) -> None:
    place.lock("99.0", "0" * 64)
    told = place.run()
    assert "BootstrapError: python failed with status 1: its own words above say why" in told
    assert "DO NOT MATCH THE HASHES" in told
    assert place.versions() == {}


def test_a_newer_lock_replaces_what_was_unpacked(place: Place) -> None:
    place.run()
    place.release("99.1")
    place.run()
    assert place.versions() == dict.fromkeys(COLLECTIONS, "99.1")
    assert [path.name for path in place.home.parent.glob("*.dist-info")] == ["ansible-99.1.dist-info"]


def test_what_somebody_installed_there_stays(place: Place) -> None:
    theirs = place.home / "community/docker/MANIFEST.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(json.dumps({"collection_info": {"version": "5.9.9"}}))
    place.run()
    assert place.versions() == dict.fromkeys(COLLECTIONS, "99.0") | {"community/docker": "5.9.9"}


@pytest.mark.parametrize("moment", ["core", "docker"])
def test_a_run_that_was_cut_off_is_brought_to_its_end_by_the_next(place: Place, moment: str) -> None:
    process = place.start(STOP=moment)
    assert process.stdout
    while (line := process.stdout.readline()) != "stopped\n":
        assert line, "it ended before"
    process.kill()
    process.communicate()
    assert 0 < len(place.versions()) < len(COLLECTIONS)
    place.run()
    assert place.versions() == dict.fromkeys(COLLECTIONS, "99.0")
    assert place.left() == ["collections"]


def test_two_at_once_wait_for_each_other(place: Place) -> None:
    both = [place.start(), place.start()]
    told = [process.communicate(timeout=100)[0].splitlines()[-1] for process in both]
    assert sorted(told) == ["False", "True"]
    assert place.versions() == dict.fromkeys(COLLECTIONS, "99.0")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ansible-playbook site.yml", set()),
        ("ansible-playbook site.yml -i inventories/local", set()),
        ("ansible-playbook playbooks/lab-up.yml", set()),
        ("ansible-playbook site.yml -i inventories/compose", {"compose"}),
        ("ansible-playbook site.yml -iinventories/compose/hosts.yml", {"compose"}),
        ("ansible-playbook site.yml --inventory=inventories/kubernetes", {"kubernetes"}),
        ("ansible-playbook site.yml --inventory inventories/kubernetes -i inventories/local", {"kubernetes"}),
        ("python -m ansible playbook site.yml -i inventories/compose", {"compose"}),
        ("ansible-playbook site.yml -e titanic_provider=kubernetes", {"kubernetes"}),
        ('ansible-playbook site.yml -e {"titanic_provider":"compose"}', {"compose"}),
        ("ansible-playbook site.yml -i inventories/none-of-that-name", set()),
        ("python -c inventories/kubernetes", set()),
        ("", set()),
    ],
)
def test_a_command_says_what_it_needs(words: str, expected: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert providers(words.split(), {}, ROOT) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all: {hosts: {one: {titanic_provider: compose}}}\n", {"compose"}),
        ("[all:vars]\ntitanic_provider=kubernetes\n", {"kubernetes"}),
        ("titanic_provider: \"{{ lookup('env', 'P') }}\"\n", {"compose", "kubernetes"}),
        ("# titanic_provider: compose\ntitanic_provider: 'local'\n", set()),
    ],
)
def test_an_inventory_of_any_form_is_read(text: str, expected: set[str], tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(text)
    assert providers(["ansible-playbook"], {"ANSIBLE_INVENTORY": str(tmp_path / "hosts")}, ROOT) == expected
    assert providers(["ansible-playbook", "-e", f"@{tmp_path}/hosts"], {}, ROOT) == expected
    beside = tmp_path / "group_vars/all"
    beside.mkdir(parents=True)
    (tmp_path / "hosts").rename(beside / "vars.yml")
    (tmp_path / "hosts").write_text("localhost\n")
    assert providers(["ansible-playbook", "-i", f"{tmp_path}/hosts"], {}, ROOT) == expected
    assert providers(["ansible-playbook", f"{tmp_path}/play.yml"], {}, ROOT) == expected


def test_it_takes_no_time_to_look() -> None:
    began = time.process_time()
    providers(["ansible-playbook", "site.yml", "-i", str(ROOT / "inventories/local")], {}, ROOT)
    assert time.process_time() - began < 0.1


def test_objects_are_compared_without_what_a_cluster_writes() -> None:
    """Otherwise kubernetes.core.k8s says that it has changed what it has not."""
    hidden = "hidden_fields: [status, metadata.managedFields, metadata.annotations]"
    places = [*COLLECTION.glob("roles/**/*.yml"), *COLLECTION.glob("playbooks/*.yml"), *ROOT.glob("molecule/**/*.yml")]
    users = [text for path in places if "kubernetes.core.k8s:" in (text := path.read_text())]
    assert users
    assert [text for text in users if hidden not in text] == []


def test_compose_builds_and_fetches_and_takes_away_nothing_that_it_was_not_told() -> None:
    """By itself it builds and pulls, starts what a service rests on, and is told by files and variables beside ours."""
    told = {"build": "never", "pull": "never", "remove_orphans": False, "dependencies": False}
    told |= {"files": ["compose.yaml"], "env_files": ["/dev/null"], "validate_certs": False}
    places = [*COLLECTION.glob("roles/**/*.yml"), *COLLECTION.glob("playbooks/*.yml")]
    texts = [text for path in places if "docker_compose_v2:" in (text := path.read_text())]
    tasks = [task for text in texts for task in yaml.safe_load(text) if "community.docker.docker_compose_v2" in task]
    assert tasks
    for task in tasks:
        assert task["community.docker.docker_compose_v2"].items() >= told.items()
        assert task["environment"] == "{{ __titanic_common_compose_environment }}"
        assert task["loop"].endswith("_planned.compose }}"), "a plan has nothing for it in check mode"


def test_bounds_are_the_same_wherever_they_stand() -> None:
    """requirements.yml is for Galaxy, galaxy.yml for who installs the collection, the table for the guard."""
    wanted = {name: f">={least},<{below}" for name, (least, below) in REQUIRED.items()}
    required = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    assert {each["name"]: each["version"] for each in required} == wanted
    assert yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["dependencies"] == wanted
    assert {name.replace(".", "/") for name in wanted} < set(COLLECTIONS)
