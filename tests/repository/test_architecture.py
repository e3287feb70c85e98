"""Which package of the collection may import which, and that no two files import each other."""

from __future__ import annotations

from graphlib import TopologicalSorter

import pytest

from bin.docs import flow, imports, loaded, package
from tests.interface import COLLECTION

SHARED = {"common", "release", "postgresql"}
HOST = SHARED | {"host"}
# package -> those that its files may import beside their own
MAY_IMPORT: dict[str, set[str]] = {
    "common": set(),
    "release": {"common"},
    "postgresql": {"common"},
    "host": {"common", "release"},
    "local": HOST,
    "docker": HOST,
    "kubernetes": SHARED,
}
# how a module's name begins -> packages that it may load; the longest that fits counts
MAY_LOAD = {
    "local_": HOST | {"local"},
    "compose_": HOST | {"docker"},
    "compose_image": HOST
    | {"docker", "kubernetes"},  # a release that cannot be built is recorded where it was to serve
    "host_": HOST | {"local", "docker"},
    "kubernetes_": SHARED | {"kubernetes"},
    "": SHARED,
}
KNOWN = imports()
LINES = 400


@pytest.mark.parametrize("name", sorted(name for name in KNOWN if name.startswith("module_utils.")))
def test_a_package_imports_what_it_may(name: str) -> None:
    mine = package(name)
    assert {package(other) for other in KNOWN[name]} <= MAY_IMPORT[mine] | {mine}


@pytest.mark.parametrize("name", sorted(name for name in KNOWN if name.startswith("modules.")))
def test_a_module_loads_what_it_may(name: str) -> None:
    found = {package(other) for other in loaded(name, KNOWN) - {name}}
    longest = max((start for start in MAY_LOAD if name.startswith(f"modules.{start}")), key=len)
    assert found <= MAY_LOAD[longest]


@pytest.mark.parametrize("name", sorted(name for name in KNOWN if name.startswith(("filter.", "lookup."))))
def test_a_filter_loads_no_client(name: str) -> None:
    assert not {other for other in loaded(name, KNOWN) if other.endswith(".client")}


def test_no_files_import_each_other() -> None:
    assert list(TopologicalSorter(KNOWN).static_order())


def test_imports_are_seen_wherever_they_stand() -> None:
    assert {"module_utils.release.plan", "plugin_utils.in_process"} <= KNOWN["action.compose_image"]
    assert "plugin_utils.in_process" in KNOWN["action.validate_inputs"], "a module, not a name of one"


def test_the_drawing_of_the_data_flow_has_what_stages_are_given() -> None:
    text = flow()
    assert 'Image -->|"its result"| Api' in text
    assert 'Preflight -->|"planned_image"| Image' in text
    assert 'Start -->|"its result"| Verify' in text, "of the stages that call a role, the one before"


def test_files_are_short() -> None:
    paths = [*COLLECTION.glob("plugins/**/*.py"), *COLLECTION.glob("roles/*/files/**/*.*")]
    written = [path for path in paths if path.suffix != ".pyc"]
    lines = {str(path.relative_to(COLLECTION)): len(path.read_text().splitlines()) for path in written}
    assert {"plugins/callback/progress.py", "roles/titanic_api/files/supervise.py"} <= set(lines)
    assert {name: count for name, count in lines.items() if count > LINES} == {}
