"""What holds for the repository as a whole: locks, pins, versions, headers, links."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.interface import COLLECTION, ROOT

LOCKS = [*sorted((ROOT / "requirements").glob("*.txt")), ROOT / "service/requirements.txt"]
# What only the Dockerfile's stages install.
IMAGE_LOCKS = sorted((ROOT / "service/image").glob("*.txt"))
# Files that cannot open with a sentence: data, texts of licences, what a tool writes or reads as a whole.
NO_HEADER = {".txt", ".csv", ".json", ".png", ".svg", ".md", ".in", ".ico", ".typed", ".woff2", ".sum", ""}
COMMENT = re.compile(
    r"""^(#!.*\n)?(---\n)?((#|//|--|;|/\*|<!--|{#|<!doctype html>\n<!--|r?\"\"\")\s*)+\S""", re.IGNORECASE
)


@pytest.mark.parametrize("lock", [*LOCKS, *IMAGE_LOCKS], ids=lambda path: str(path.relative_to(ROOT)))
def test_locks_name_no_place(lock: Path) -> None:
    """Where packages come from and where the lock was made is nobody's business."""
    text = lock.read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr|opt)\b", text)


@pytest.mark.parametrize("lock", [*LOCKS, *IMAGE_LOCKS], ids=lambda path: str(path.relative_to(ROOT)))
def test_locks_hash_everything(lock: Path) -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", "\n" + lock.read_text())
    pins = [entry for entry in entries if re.match(r"[A-Za-z0-9]", entry)]
    assert pins
    for pin in pins:
        assert "==" in pin.splitlines()[0]
        assert "--hash=sha256:" in pin


def test_every_step_of_the_image_that_asks_an_index_can_be_told_of_another() -> None:
    steps = re.split(r"\n(?=[A-Z]+ )", re.sub(r"\\\n", "", (ROOT / "Dockerfile").read_text()))
    asking = [step for step in steps if re.search(r"pip (install|wheel)\b", step) and "--require-hashes" in step]
    assert len(asking) == len(IMAGE_LOCKS) + 1
    for step in asking:
        assert {"pip_conf", "pip_cert", "pip_client_cert"} == set(re.findall(r"--mount=type=secret,id=(\w+)", step))
    others = [step for step in steps if re.search(r"pip\b.* (install|wheel)\b", step) and step not in asking]
    assert all("--no-index" in step for step in others)


def pinned(lock: Path) -> dict[str, set[str]]:
    """Package -> versions that a lock pins (several where they depend on the interpreter)."""
    result: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*])?==([^\s;]+)", lock.read_text(), re.MULTILINE):
        result.setdefault(re.sub(r"[-_.]+", "-", name).lower(), set()).add(version)
    return result


def wanted(source: Path) -> list[Requirement]:
    """The requirements that a file asks for, and those of the files that it takes over (``-r``)."""
    if source.name == "pyproject.toml":
        return [Requirement(text) for text in tomllib.loads(source.read_text())["project"]["dependencies"]]
    lines = [line.partition(" #")[0].strip() for line in source.read_text().splitlines()]
    others = [source.parent / line.removeprefix("-r ") for line in lines if line.startswith("-r ")]
    own = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return own + [requirement for other in others for requirement in wanted(other)]


@pytest.mark.parametrize(
    ("source", "lock"),
    [
        *((path, path.with_suffix(".txt")) for path in sorted((ROOT / "requirements").glob("*.in"))),
        (ROOT / "service/pyproject.toml", ROOT / "service/requirements.txt"),
    ],
    ids=lambda path: path.name,
)
def test_locks_hold_what_is_asked_for(source: Path, lock: Path) -> None:
    versions = pinned(lock)
    for requirement in wanted(source):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name in versions, f"make lock: {requirement} is not in {lock.name}"
        assert any(requirement.specifier.contains(version) for version in versions[name]), requirement


def test_sets_agree_with_each_other() -> None:
    """All sets live in one .venv, so a package has one version in all: what is tested is what is deployed."""
    first = {name: (versions, lock) for lock in reversed(LOCKS) for name, versions in pinned(lock).items()}
    for lock in LOCKS:
        for name, versions in pinned(lock).items():
            assert versions == first[name][0], f"{name}: {lock.name} and {first[name][1].name} differ: make lock"


def test_actions_are_pinned_by_commit() -> None:
    used = [
        (path.name, line.strip())
        for path in (ROOT / ".github").rglob("*.yml")
        for line in path.read_text().splitlines()
        if re.match(r"\s*(- )?uses: (?!\./)", line)  # what lies in this checkout is of this commit
    ]
    assert used
    for name, line in used:
        assert re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d", line), f"{name}: {line}"


def test_workflow_runs_the_command_of_the_readme() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["test"]
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]
    # As root of a Debian, without which the lab's engine and cluster would be left out.
    assert {base["image"].partition("@")[0] for base in job["strategy"]["matrix"]["base"]} == {
        "golang:1.26-bookworm",
        "golang:1.26-trixie",
    }
    assert "--privileged" in job["container"]["options"]
    assert job["timeout-minutes"] == 90
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("exec make test")
    assert "\nmake test" in (ROOT / "README.md").read_text()


def test_full_measure_is_a_target_that_a_workflow_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())
    assert "make test-full" in [step.get("run") for step in workflow["jobs"]["full"]["steps"]]


def test_one_version() -> None:
    """Tag, collection and service carry one version, and the changelog knows it."""
    collection = str(yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["version"])
    service = tomllib.loads((ROOT / "service/pyproject.toml").read_text())["project"]["version"]
    assert service == collection
    assert collection in yaml.safe_load((COLLECTION / "changelogs/changelog.yaml").read_text())["releases"]


def test_every_file_says_what_it_is_for(files: list[Path]) -> None:
    silent = []
    for path in files:
        if path.suffix in NO_HEADER and path.name not in ("Makefile", "run"):
            continue
        if path.name == "changelog.yaml":  # antsibull-changelog writes it, without comments
            continue
        text = (ROOT / path).read_text(errors="replace")
        if text.strip() and not COMMENT.match(text):
            silent.append(str(path))
    assert silent == []


def test_markdown_opens_with_a_title(files: list[Path]) -> None:
    for path in files:
        if path.suffix == ".md" and path.parts[0] != ".github":
            assert (ROOT / path).read_text().startswith("# "), path


def anchors(path: Path) -> set[str]:
    """The anchors that a Markdown file's headings make, in GitHub's way."""
    # a comment in a block of commands is no heading
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_somewhere(files: list[Path]) -> None:
    broken = []
    for path in files:
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / path).read_text()):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            goal = (ROOT / path.parent / name).resolve() if name else ROOT / path
            if not goal.exists() or (anchor and goal.suffix == ".md" and anchor not in anchors(goal)):
                broken.append(f"{path}: {target}")
    assert broken == []


def test_no_generated_file_is_committed(files: list[Path]) -> None:
    made = re.compile(r"(__pycache__|\.pyc$|\.venv/|\.state/|\.reports/|_cache/|\.tar\.gz$|\.log$)")
    assert [str(path) for path in files if made.search(str(path))] == []


def test_a_clone_has_the_same_bytes_whatever_git_makes_of_line_ends(tmp_path: Path) -> None:
    command = ["git", "clone", "--quiet", "--config", "core.autocrlf=true", str(ROOT), str(tmp_path / "clone")]
    subprocess.run(command, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "--eol"], cwd=tmp_path / "clone", capture_output=True, text=True, check=True
    )
    assert [line for line in listed.stdout.splitlines() if "w/crlf" in line or "w/mixed" in line] == []
    assert (tmp_path / "clone/bin/run").read_bytes() == (ROOT / "bin/run").read_bytes()
