"""The interface of the roles is closed: specifications, defaults, call sites, inventories and docs name the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.modules.host_lifecycle import OURS
from ansible_collections.whitestar.deploy.plugins.plugin_utils.names import RENAMED

from bin.docs import load
from bin.docs import main as docs
from tests.interface import (
    COLLECTION,
    ROOT,
    calls,
    defaults,
    names_in,
    options,
    playbooks,
    public_names,
    results,
    role_path,
    shared,
    without_comments,
)
from tests.steps import PROVIDERS, promises

ROLES = sorted(options())
SHARED = "titanic_common"


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_the_options(role: str) -> None:
    users = ROLES if role == SHARED else [role]
    parts = [role_path(user).rglob(part) for user in users for part in ("tasks/*.yml", "vars/*.yml", "templates/*")]
    files = [path for part in parts for path in part]
    values, tasks = defaults(role), "".join(path.read_text() for path in files)
    assert set(values) <= set(options()[role])
    for name, option in options()[role].items():
        if option.get("required"):
            assert "undef(hint=" in str(values.get(name, "undef(hint=")), f"{name} is required and has a default"
        elif name not in values:
            # one that may be left out and has no default: the role says what it does without it
            assert re.search(rf"\b{name} *(\| *default\(|is (not )?defined)", tasks), f"{name} has no default"


@pytest.mark.parametrize("role", [role for role in ROLES if role.startswith("titanic_") and role != SHARED])
def test_every_role_has_the_shared_settings_and_says_no_other_s_option(role: str) -> None:
    assert load(role_path(role) / "meta/main.yml")["dependencies"] == [f"whitestar.deploy.{SHARED}"]
    assert not set(options()[role]) & shared()


@pytest.mark.parametrize("role", ROLES)
def test_what_overrules_an_inventory_is_no_option(role: str) -> None:
    """Ansible takes a role's variables before those of an inventory, and its defaults after them."""
    assert [name for name in load(role_path(role) / "vars/main.yml") if not name.startswith(f"__{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_s_result_is_set_once(role: str) -> None:
    """In main.yml, and where another entry point has another one; a provider's file only registers what it did."""
    own = [path.name for path in role_path(role).rglob("tasks/*.yml") if "ansible.builtin.set_fact" in path.read_text()]
    assert set(own) <= {"main.yml", "objects.yml", "image.yml"}


@pytest.mark.parametrize("role", ROLES)
def test_options_have_types_and_meaning(role: str) -> None:
    for name, option in options()[role].items():
        assert name.startswith(("titanic_", "lab_")), name
        assert option.get("type"), f"{name} has no type"
        assert len(str(option.get("description", ""))) > 10, f"{name} has no description"


@pytest.mark.parametrize("role", ROLES)
def test_stated_defaults_are_the_real_ones(role: str) -> None:
    values = defaults(role)
    stated = {name: option["default"] for name, option in options()[role].items() if "default" in option}
    assert stated == {name: values.get(name) for name in stated}


@pytest.mark.parametrize("role", ROLES)
def test_defaults_say_what_they_are_for(role: str) -> None:
    path = role_path(role) / "defaults/main.yml"
    lines = path.read_text().splitlines() if path.is_file() else []
    for place, line in enumerate(lines):
        if re.match(r"[a-z_]+:", line):
            assert lines[place - 1].startswith("# "), f"{path.name}: {line} has no comment above it"
    for name, value in defaults(role).items():
        assert value is not None, f"{name} is null"
        assert value not in ("", "changeme"), f"{name}: {value!r}"


@pytest.mark.parametrize("role", ROLES)
def test_role_reads_its_own_variables_only(role: str) -> None:
    own = set(options()[role]) | results() | (shared() if role.startswith("titanic_") else set())
    # old names, which it takes for one version
    own |= {old for old, new in RENAMED.items() if new in options()[role]}
    for path in role_path(role).rglob("*"):
        if path.is_file() and path.suffix in (".yml", ".yaml", ".j2") and path.parent.name != "meta":
            # a hint names where a value comes from; it reads nothing
            foreign = names_in(re.sub(r"undef\(hint=.*\)", "", without_comments(path))) - own
            assert not foreign, f"{path.relative_to(ROOT)} uses {sorted(foreign)}"


@pytest.mark.parametrize("playbook", playbooks(), ids=lambda path: str(path.relative_to(ROOT)))
def test_playbooks_hand_over_what_no_user_may_set(playbook: Path) -> None:
    """What a call sets wins over an inventory, and so is no option; the lab's roles are called with their options."""
    for role, given in calls(playbook):
        wrong = [name for name in given if not name.startswith(f"__{role}_")]
        assert not wrong or set(wrong) <= set(options()[role]) - public_settings(), f"{role} does not take {wrong}"
        read = "".join(path.read_text() for part in ("tasks", "vars", "defaults") for path in parts(role, part))
        assert [name for name in given if not re.search(rf"\b{name}\b", read)] == []
    assert names_in(without_comments(playbook)) <= public_names() | results()


def public_settings() -> set[str]:
    """The options of the collection's roles, which an inventory sets."""
    return {name for role, own in options().items() if role.startswith("titanic_") for name in own}


def parts(role: str, part: str) -> list[Path]:
    """The files of one part of a role."""
    return sorted((role_path(role) / part).glob("*.yml"))


@pytest.mark.parametrize("place", ["inventories", "molecule", "docs", ".github", "README.md"])
def test_names_elsewhere_exist(place: str) -> None:
    paths = [ROOT / place] if (ROOT / place).is_file() else sorted((ROOT / place).rglob("*"))
    metrics = set(re.findall(r"titanic_[a-z0-9_]+", service_sources()))
    for path in paths:
        if path.suffix in (".yml", ".md", ".j2"):
            # a misspelt name that a scenario plants on purpose says so on its line
            text = "\n".join(line for line in path.read_text().splitlines() if "misspelt" not in line)
            unknown = names_in(text) - public_names() - results() - metrics
            assert not unknown, f"{path.relative_to(ROOT)} names {sorted(unknown)}"


def test_every_input_is_set_by_a_test() -> None:
    """House rule: an input exists when a test, a scenario or an inventory sets it."""
    places = [ROOT / "molecule", ROOT / "inventories", ROOT / "tests", COLLECTION / "tests"]
    paths = [path for place in places for path in place.rglob("*") if path.suffix in (".yml", ".py", ".j2")]
    texts = "\n".join(path.read_text() for path in [*paths, *playbooks()])
    assert sorted(name for name in public_names() if not re.search(rf"\b{name}\b", texts)) == []


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_a_scenario(role: str) -> None:
    if role.startswith("lab_"):  # what makes throwaway targets is tried where they are used
        assert any(
            role in (ROOT / "tests" / path).read_text()
            for path in ("end_to_end/image/test_lab.py", "lab/test_cluster.py")
        )
        return
    if role == SHARED:  # has no task; every scenario's roles live on it
        assert all(role in (ROOT / f"molecule/shared/{name}.yml").read_text() for name in ("stages", "verify"))
        return
    assert promises(role.removeprefix("titanic_"))


@pytest.mark.parametrize("scenario", sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")))
def test_every_promise_of_a_scenario_has_a_file_and_every_file_a_promise(scenario: str) -> None:
    """A provider's own file is for that provider, and what no promise names is included by one that is named."""
    place = ROOT / "molecule" / scenario / "tasks"
    asked = promises(scenario)
    assert set(asked) <= set(PROVIDERS)
    for provider, names in asked.items():
        for name in names:
            assert any((place / part / f"{name}.yml").is_file() for part in (provider, ".")), f"{provider}: {name}"
    texts = "".join(path.read_text() for path in place.rglob("*.yml"))
    for path in place.rglob("*.yml"):
        at = [path.parent.name] if path.parent != place else list(asked)
        assert any(path.stem in asked.get(provider, []) for provider in at) or path.name in texts, path


def test_every_role_has_an_interface() -> None:
    directories = {path.name for path in (COLLECTION / "roles").iterdir() if path.is_dir()}
    directories |= {path.name for path in (ROOT / "roles").glob("*") if path.is_dir()}
    assert directories == set(options())


def test_no_role_lives_in_both_homes() -> None:
    names = {path.name for path in (COLLECTION / "roles").iterdir()}
    assert not names & {path.name for path in (ROOT / "roles").glob("*")}


def test_generated_documentation_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert docs(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("role", ROLES)
def test_readme_of_a_role_tells_what_it_does(role: str) -> None:
    text = (role_path(role) / "README.md").read_text()
    for section in ("Outcome", "Example", "Idempotence", "Check mode", "Rollback", "Variables"):
        assert re.search(rf"^#+ {section}", text, re.MULTILINE), f"{role}/README.md has no section {section}"


def listed_tags() -> set[str]:
    """Tags as ansible-playbook lists them."""
    command = ["ansible-playbook", "site.yml", "-i", "inventories/local", "--list-tags"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tags = {tag.strip() for group in re.findall(r"TAGS: \[(.*?)\]", output) for tag in group.split(",")}
    return tags - {"", "always", "never"}


def preflight_tags() -> set[str]:
    """Tags that the preflight lets pass."""
    return set(load(role_path("titanic_preflight") / "vars/main.yml")["__titanic_preflight_tags"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"titanic_provider": "local"}, "-U postgres people > titanic.sql"),
        ({"titanic_provider": "compose"}, "exec -T database pg_dump -U postgres people > titanic.sql"),
        ({"titanic_provider": "kubernetes"}, "exec titanic-database-0 -- pg_dump -U postgres people > titanic.sql"),
        (
            {"titanic_provider": "kubernetes", "titanic_database_kind": "external"},
            "as whoever runs the database does it, which is of the kind external",
        ),
    ],
)
def test_a_teardown_that_is_not_confirmed_says_how_this_database_is_dumped(
    tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    role = {"ansible.builtin.import_role": {"name": "whitestar.deploy.titanic_teardown"}}
    play = {
        "name": "Tear down",
        "hosts": "all",
        "gather_facts": False,
        "vars": {"ansible_connection": "local", "titanic_database_name": "people", **settings},
        "tasks": [role],
    }
    (tmp_path / "down.yml").write_text(yaml.safe_dump([play]))
    command = ["ansible-playbook", str(tmp_path / "down.yml"), "-i", "here,"]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert words in " ".join(done.stdout.split())


def test_required_options_are_the_inventory_s() -> None:
    """A run needs nothing but what the inventories of this checkout say."""
    inventory = load(ROOT / "inventories/local/group_vars/all/titanic.yml")
    required = {
        name for name in public_settings() if any(own.get(name, {}).get("required") for own in options().values())
    }
    assert required <= set(inventory) | {"titanic_confirm_teardown"}


def test_old_names_are_documented() -> None:
    text = (role_path(SHARED) / "README.md").read_text()
    assert [old for old, new in RENAMED.items() if f"| `{old}` | `{new}` |" not in text] == []
    taken = "".join(path.read_text() for role in ROLES for path in parts(role, "defaults"))
    for old, new in RENAMED.items():
        assert re.search(rf"^{new}: .*\b{old} \| default\(", taken, re.MULTILINE), old


def test_tags_are_closed() -> None:
    readme = (ROOT / "README.md").read_text()
    documented = set(
        re.findall(r"^\| `([a-z_]+)` \|", readme.partition("## Tags")[2].partition("\n## ")[0], re.MULTILINE)
    )
    assert listed_tags() == preflight_tags()
    assert documented == preflight_tags()


GROUP = "no host is in the group titanic, so that nothing would be deployed. Name an inventory"


@pytest.mark.parametrize(
    ("inventory", "arguments", "words"),
    [
        (None, [], GROUP),  # a name misspelt
        ("titanic: {}", [], GROUP),
        ("titanics: {hosts: {a: {}}}", [], GROUP),
        (
            "titanic: {hosts: {a: {}}}\nweb: {hosts: {b: {}}}",
            ["--limit", "web"],
            "--limit web leaves no host of the group",
        ),
    ],
)
def test_a_deployment_that_reaches_no_host_has_failed(
    tmp_path: Path, inventory: str | None, arguments: list[str], words: str
) -> None:
    path = tmp_path / "inventory.yml"
    if inventory is not None:
        path.write_text(inventory)
    command = ["ansible-playbook", "site.yml", "-i", str(path), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert words in " ".join((done.stdout + done.stderr).split())


def test_every_playbook_of_the_collection_fails_where_there_is_no_target() -> None:
    hosts = {play["hosts"] for path in COLLECTION.glob("playbooks/*.yml") for play in yaml.safe_load(path.read_text())}
    assert hosts == {"{{ query('whitestar.deploy.targets', 'titanic') }}"}


def service_sources() -> str:
    """The text of the service's Python files."""
    return "\n".join(path.read_text() for path in sorted((ROOT / "service/src").rglob("*.py")))


def documentation() -> str:
    """The text of all Markdown that is for readers."""
    paths = [ROOT / "README.md", ROOT / "service/README.md", *(ROOT / "docs").rglob("*.md"), *COLLECTION.rglob("*.md")]
    paths += (ROOT / "roles").rglob("*.md")
    return "\n".join(path.read_text() for path in paths if path.is_file())


def test_docs_name_every_setting_of_the_service() -> None:
    settings = set(re.findall(r"\bTITANIC_[A-Z_]+[A-Z]\b", service_sources()))
    text = documentation()
    assert settings
    assert sorted(name for name in settings if name not in text) == []


def test_docs_name_every_endpoint() -> None:
    command = [sys.executable, "-m", "titanic_api", "openapi"]
    document = yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    text = documentation()
    offered = {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item if method in METHODS
    }
    assert len(offered) >= 7
    assert sorted(operation for operation in offered if operation not in text) == []


METHODS = {"get", "put", "post", "patch", "delete"}


def test_docs_name_every_variable() -> None:
    text = documentation()
    assert sorted(name for name in public_names() if f"`{name}`" not in text) == []


def test_the_documents_say_what_each_thing_in_a_state_directory_is() -> None:
    text = "".join((ROOT / f"docs/user/{name}.md").read_text() for name in ("settings", "compose"))
    assert [name for name in sorted(OURS) if not re.search(rf"`{re.escape(name)}[/`]", text)] == []
