"""Lists that documents have beside the code are the code's: what is given back, asked, set, needed, made, refused."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.filter.workload import RELEASES, database_environment
from ansible_collections.whitestar.deploy.plugins.module_utils.common import package_index
from ansible_collections.whitestar.deploy.plugins.module_utils.docker import client as docker
from ansible_collections.whitestar.deploy.plugins.module_utils.docker import packages as engine_packages
from ansible_collections.whitestar.deploy.plugins.module_utils.host import blue_green as colours
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes import client as kubernetes
from ansible_collections.whitestar.deploy.plugins.module_utils.local import postgresql
from ansible_collections.whitestar.deploy.plugins.module_utils.release import ledger
from ansible_collections.whitestar.deploy.plugins.module_utils.release import smoke_test as trial
from ansible_collections.whitestar.deploy.plugins.modules.host_lifecycle import OURS
from ansible_collections.whitestar.deploy.tests.helpers import SERVICE

from tests.end_to_end.load.open_loop import LoadPlan, LoadReport
from tests.interface import COLLECTION, ROOT, options, role_path
from tests.steps import PROVIDERS, steps
from titanic_api import cli

ROLES = sorted(options())
USER = {path.stem: path.read_text() for path in sorted((ROOT / "docs/user").glob("*.md"))}
README = (COLLECTION / "README.md").read_text()


def source(*patterns: str) -> str:
    """The text of the collection's files."""
    return "\n".join(path.read_text() for pattern in patterns for path in sorted(COLLECTION.glob(pattern)))


def prose(role: str) -> str:
    """What a role's README says beside its table of variables, in one line."""
    return " ".join((role_path(role) / "README.md").read_text().partition("## Variables")[0].split())


def tasks(role: str) -> Iterator[dict[str, Any]]:
    """Every task of a role."""
    for path in sorted((role_path(role) / "tasks").glob("*.yml")):
        yield from yaml.safe_load(path.read_text())


def given_back(role: str) -> set[str]:
    """The keys of what a role gives back, where its tasks name them."""
    facts = [task.get("ansible.builtin.set_fact", {}).get(f"{role}_result") for task in tasks(role)]
    return {key for fact in facts if isinstance(fact, dict) for key in fact}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_says_what_it_gives_back(role: str) -> None:
    text = prose(role)
    gives = any(f"{role}_result" in task.get("ansible.builtin.set_fact", {}) for task in tasks(role))
    assert (f"`{role}_result`" in text) == gives
    assert sorted(key for key in given_back(role) if f"`{key}`" not in text) == []


def test_what_became_of_a_release_is_called_as_the_summary_calls_it() -> None:
    deeds = set(RELEASES)
    assert deeds == {"none", "awaited", "restarted", "resumed", "deployed", "rotated"}
    assert "`action`: rotated" in prose("titanic_rotate")
    deeds.remove("rotated")
    told = re.search(r"`action`: (.*?);", prose("titanic_api"))
    assert told
    assert set(re.findall(r"\w+", re.sub(r"\(.*?\)", "", told[1]))) - {"or"} == deeds


def report(module: str) -> set[str]:
    """The keys of what a module reports."""
    tree = ast.parse((COLLECTION / f"plugins/modules/{module}.py").read_text())
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "report"]
    answers = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    return {
        str(key.value)
        for answer in answers
        if isinstance(answer, ast.Dict)
        for key in answer.keys
        if isinstance(key, ast.Constant)
    }


def test_the_status_is_told_of_line_by_line() -> None:
    text = (role_path("titanic_status") / "README.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", text.partition("## Variables")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == report("host_lifecycle") | report("kubernetes_lifecycle")


def test_the_paths_of_a_trial_are_those_that_are_asked() -> None:
    decision = (ROOT / "docs/decisions/0011-a-release-is-tried-out.md").read_text()
    for path in SERVICE["probes"]["smoke"]:
        assert f"`{path}`" in README
        assert f"`{path}`" in decision


def test_the_metrics_that_an_analysis_reads_are_named() -> None:
    assert [name for name in trial.METRICS if f"`{name}`" not in README] == []


def test_every_variable_that_a_service_is_given_is_named() -> None:
    every = ("host", "port", "name", "user", "password_file", "owner", "owner_password_file", "sslmode", "sslrootcert")
    given = set(database_environment(dict.fromkeys(every, "x"))) | {"TITANIC_RELEASE"}
    text = source("roles/titanic_api/vars/*.yml", "plugins/module_utils/*/*.py")
    given |= set(re.findall(r"""["'{](TITANIC_[A-Z_]+)["']?(?:: |\] = )""", text))
    rows = README.partition("| variable | what | to |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(TITANIC_\w+)`", rows)) == given


def words(version: tuple[int, ...]) -> str:
    """A version as people write it: without a zero at its end."""
    return ".".join(map(str, version)).removesuffix(".0")


def test_the_oldest_versions_that_will_do_are_those_that_are_looked_for() -> None:
    engine = (
        f"Docker {words(docker.OLDEST_ENGINE)}, Compose {words(docker.OLDEST_COMPOSE)} and "
        f"Buildx {words(docker.OLDEST_BUILDX)}, or later"
    )
    debian, ubuntu = (engine_packages.DISTRIBUTIONS[name][0] for name in ("debian", "ubuntu"))
    assert (debian, ubuntu) == ((13,), (24, 4))
    ansible = yaml.safe_load((COLLECTION / "meta/runtime.yml").read_text())["requires_ansible"]
    first, beyond = map(int, re.findall(r"2\.(\d+)\.0", ansible))
    *earlier, last = [f"2.{minor}" for minor in range(first, beyond)]
    expected = {
        README: [
            engine,
            "Debian 13 and Ubuntu 24.04, or later",
            f"a cluster of {words(kubernetes.OLDEST)} or later",
            f"ansible-core {', '.join(earlier)} or {last};",
        ],
        USER["compose"]: [engine, "Debian 13 or Ubuntu 24.04, or later"],
        USER["kubernetes"]: [f"has to be {words(kubernetes.OLDEST)} or later"],
        USER["settings"]: [f"installed ({postgresql.OLDEST_MAJOR} or later)"],
    }
    for text, wanted in expected.items():
        whole = " ".join(text.split())
        assert [each for each in wanted if each not in whole] == []


def test_what_is_taken_of_pips_configuration_is_named() -> None:
    (told,) = re.findall(r"Taken are (.*?) except for images\.", " ".join(USER["getting-started"].split()))
    assert set(re.findall(r"`([a-z-]+)`", told)) == set(package_index.TO_UV)
    for_images = {*package_index.FOR_A_BUILD, *package_index.FILES}
    assert set(package_index.TO_UV) - for_images == {"find-links"}


def test_the_figures_of_a_failed_release_are_those_of_the_code() -> None:
    text = " ".join(USER["releases-and-rollback"].split())
    assert ledger.FAILURE_REPORTS_KEPT == 10
    assert "The last ten are kept" in text
    for page in ("settings", "kubernetes"):
        assert "the failure reports of the last ten releases that failed" in USER[page]
    assert f"the release's last {colours.FAILURE_REPORT_LINES} lines" in text
    assert f"the database's last {colours.DATABASE_LINES} lines" in text
    assert f"Fewer than {trial.FEWEST_REQUESTS} requests" in text
    assert f"longer than {trial.SMOKE_SECONDS:g} s" in text


def test_who_owns_a_secret_is_told() -> None:
    owners = yaml.safe_load((role_path("titanic_secrets") / "vars/main.yml").read_text())
    found = {
        uid
        for name in (
            "__titanic_secrets_owners",
            "__titanic_secrets_tls_owners",
            "__titanic_secrets_database_tls_owners",
        )
        for uid in owners[name].values()
    }
    for text in (prose("titanic_secrets"), USER["secrets"], USER["compose"]):
        assert sorted(uid for uid in found if not re.search(rf"\b{uid}\b", text)) == []


def test_every_kind_of_object_on_a_cluster_is_named() -> None:
    templates = source("roles/titanic_*/templates/*.j2", "plugins/module_utils/kubernetes/manifests.py")
    kinds = set(re.findall(r"""^\s*["']?kind["']?: ["']?([A-Z]\w+)\b["',]*$""", templates, re.MULTILINE))
    # What an administrator has made, and what is part of another object.
    kinds -= {"Role", "RoleBinding"}
    assert {"Namespace", "StatefulSet", "Job", "HTTPRoute"} <= kinds
    page = USER["kubernetes"]
    assert sorted(kind for kind in kinds if not re.search(rf"\b{kind}s?\b|\b{kind[:-1]}ies\b", page)) == []


def differing() -> set[str]:
    """What drift tells of on a host, by its first word, in the plural."""
    found = re.findall(
        r"""Difference\(\s*f?"(\w+) """,
        source("plugins/module_utils/[!k]*/drift.py", "plugins/modules/host_drift_info.py"),
    )
    found += re.findall(r"""f"(role|database) """, source("plugins/module_utils/postgresql/drift.py"))
    return set(found)


def test_what_drift_tells_of_is_in_its_table() -> None:
    text = prose("titanic_drift")
    plural = {"process": "processes", "directory": "directory", "service": "number", "colour": "colour"}
    assert {"file", "container", "network", "process", "release", "role", "database"} <= differing()
    assert sorted(word for word in differing() if plural.get(word, word) not in text) == []


def test_the_exit_codes_of_the_service_are_told() -> None:
    text = (ROOT / "service/README.md").read_text()
    codes = {"done": cli.OK, "refused or failed": cli.FAILED, "wrong usage or setting": cli.USAGE, "interrupted": 130}
    told = ", ".join(f"{code}: {meaning}" for meaning, code in codes.items())
    assert f"Exit code {told}." in text
    assert '_say("interrupted", 130)' in Path(cli.__file__).read_text()


# What others say: Ansible, a cluster, or two programs in one sentence.
OTHERS = {"UNREACHABLE!", "Make sure this host can be reached over ssh", "Compose is ", "Buildx is "}


def test_errors_that_are_explained_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| (`.*?) \| ", USER["troubleshooting"].partition("## Error messages")[2], re.MULTILINE)
    assert len(rows) > 20
    said = source("plugins/**/*.py", "roles/**/*.yml") + "".join(
        path.read_text() for path in (ROOT / "bin").iterdir() if path.is_file()
    )
    # A sentence may go on in the next line of the source.
    whole = re.sub(r'"\s*\n\s*f?"', "", said)
    parts = [part for row in rows for message in re.findall(r"`(.+?)`", row) for part in message.split("…")]
    parts = [re.sub(r"^titanic_\w+: ", "", part) for part in parts]
    missing = [part for part in parts if part.strip(" :") and part not in OTHERS and part.strip() not in whole]
    assert missing == []


def test_the_decisions_are_listed_by_their_titles() -> None:
    listed = dict(
        re.findall(r"^\| \[\d+\]\((.+?)\) \| (.+?) \|$", (ROOT / "docs/decisions/README.md").read_text(), re.MULTILINE)
    )
    titles = {
        path.name: path.read_text().splitlines()[0].partition(". ")[2]
        for path in (ROOT / "docs/decisions").glob("0*.md")
    }
    assert listed == titles


def test_the_types_of_problems_that_are_explained_are_those_of_a_503() -> None:
    registry = (ROOT / "service/src/titanic_api/errors.py").read_text()
    front = source("roles/titanic_api/templates/Caddyfile.j2", "plugins/module_utils/release/maintenance.py")
    types = set(re.findall(r'Kind\(503, "([a-z-]+)"', registry))
    types |= set(re.findall(r'"urn:titanic:problem:([a-z-]+)"[^}]*?"status": ?503', front))
    chapter = USER["troubleshooting"].partition("## The API answers 503 for some requests")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", chapter, re.MULTILINE)) - {"type"} == types


def test_the_rooms_of_tests_name_steps_that_there_are() -> None:
    rows = (ROOT / "docs/developer/tests.md").read_text().partition("| room |")[2].partition("\n\n")[0].splitlines()[2:]
    named = {name for row in rows for name in re.findall(r"`(.+?)`", row.split("|")[4])}
    assert {"unit", "service", "molecule-PROVIDER…"} <= named
    names = [step.name for step in steps()]
    for name in named:
        for provider in PROVIDERS if "PROVIDER" in name else ("",):
            wanted = re.escape(name).replace("PROVIDER", provider).replace("…", ".*")
            assert any(re.fullmatch(wanted, step) for step in names), name


@pytest.mark.parametrize("kind", [LoadPlan, LoadReport])
def test_the_load_client_names_its_fields(kind: type[LoadPlan | LoadReport]) -> None:
    text = (ROOT / "tests/end_to_end/load/README.md").read_text()
    assert [field.name for field in dataclasses.fields(kind) if f"`{field.name}" not in text] == []


def test_how_long_a_connection_may_take_to_bring_its_request_is_told() -> None:
    (seconds,) = re.findall(
        r"^ARRIVAL_SECONDS = (\d+)$", (ROOT / "service/src/titanic_api/serve.py").read_text(), re.MULTILINE
    )
    assert f"one that brings no request is closed after {seconds} s." in (ROOT / "service/README.md").read_text()


# What only processes need in a state directory.
OF_PROCESSES = {"Caddyfile", "backup", "database", "drill", "log", "restore", "supervise.py", "tools"}


def test_the_page_on_compose_says_what_is_in_the_state_directory() -> None:
    assert OF_PROCESSES < OURS
    chapter = USER["compose"].partition("## The state directory\n")[2].partition("\n## ")[0]
    assert sorted(name for name in OURS - OF_PROCESSES if not re.search(rf"`{re.escape(name)}[/`]", chapter)) == []


DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/**/*.md", "bench/*.md", "service/*.md", "roles/*/*.md")
    for path in sorted(ROOT.glob(pattern))
    if path.name != "CHANGELOG.md"
] + [COLLECTION / "README.md", *sorted(COLLECTION.glob("roles/*/README.md"))]


# The reader's own, and what a run leaves.
NOT_THERE = {"inventories/NAME", "inventories/local/group_vars/all/vault.yml", "tests/full_measure.json"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_files_and_names_in_a_document_are_there(path: Path) -> None:
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", path.read_text(), re.DOTALL))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", code, re.MULTILINE)) <= set(targets)
    files = set(re.findall(r"(?<![\w/.])((?:playbooks|inventories|tests|docs|bin)/[\w/-]+(?:\.\w+)?)", code))
    places = (ROOT, COLLECTION, path.parent)
    assert sorted(name for name in files - NOT_THERE if not any((place / name).exists() for place in places)) == []
    known = {found.stem for kind in ("plugins/*", "playbooks") for found in COLLECTION.glob(f"{kind}/*.*")}
    known |= {*ROLES, *re.findall(r'^            "(\w+)": ', source("plugins/filter/*.py"), re.MULTILINE)}
    assert set(re.findall(r"whitestar\.deploy\.([a-z]\w+)", code)) <= known


# A decision keeps the words in which it was taken.
CURRENT = [path for path in DOCUMENTS if path.parent.name != "decisions"]


def glossary(title: str) -> list[list[str]]:
    """The rows of a table of the glossary, below the heading that it has."""
    text = (ROOT / "docs/glossary.md").read_text().partition(f"# {title}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines() if row.startswith("| ")][1:]


def test_the_glossary_is_in_order() -> None:
    terms = [row[0] for row in glossary("Glossary")]
    assert {"release", "rollback", "reverse proxy", "health check", "smoke test", "failure report"} <= set(terms)
    assert terms == sorted(set(terms), key=str.lower)


@pytest.mark.parametrize("path", CURRENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_uses_the_terms_of_the_glossary(path: Path) -> None:
    words = [word for row in glossary("Words that the documents do not use") for word in row[0].split(", ")]
    assert "front door" in words
    # Names of files and variables are kept; so are the titles of decisions.
    prose = re.sub(
        r"```.*?```|`[^`\n]+`|\]\(.*?\)", "", path.read_text().partition("## Words that")[0], flags=re.DOTALL
    )
    assert [word for word in words if re.search(rf"\b{word}s?\b", prose, re.IGNORECASE)] == []


def test_every_page_is_reached_from_the_list_of_pages() -> None:
    listed = set(re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs/README.md").read_text()))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    pages = {page for page in pages if not page.startswith("decisions/0")} - {"README.md"}
    assert sorted(pages - listed) == []
