"""The built collection works alone: stripped to what a stranger installs, it deploys, repeats, and leaves nothing.

No secret leaves its file meanwhile: recognisable ones are planted, then looked for in output, arguments and files.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment import CONFIRMED, Deployment, torn_down, workplace
from tests.interface import COLLECTION, ROOT
from tests.secret_scan import (
    MARK,
    assert_for_owners_alone,
    assert_in_use,
    assert_only_in_secret_files,
    assert_told_without_secrets,
    live,
)

KEPT = {"MANIFEST.json", "FILES.json", "meta", "plugins", "roles", "playbooks"}
INVENTORY = """\
titanic:
  hosts: {{localhost: {{}}}}
  vars:
    titanic_provider: local
    titanic_image_context: {service}
    ansible_connection: local
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tarball as ``ansible-galaxy collection build`` makes it from the files that a commit would hold."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "."],
        cwd=COLLECTION,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(COLLECTION / name, source / name)
    command = ["ansible-galaxy", "collection", "build", str(source), "--output-path", str(source / "out")]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = (source / "out").glob("whitestar-deploy-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def deployment(artifact: Path) -> Iterator[Deployment]:
    """A place with the stripped collection, a copy of the service and nothing else of this checkout."""
    with workplace() as place:
        # Processes need no collection of others; --no-deps is what the README says then.
        command = ["ansible-galaxy", "collection", "install", "--offline", "--no-deps", "--collections-path"]
        subprocess.run([*command, f"{place}/collections", str(artifact)], check=True, capture_output=True, cwd=place)
        home = place / "collections/ansible_collections/whitestar/deploy"
        for path in home.iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(
            ROOT / "service", place / "service", ignore=shutil.ignore_patterns("__pycache__", "tests", ".*")
        )
        (place / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {place}/collections\n")
        (place / "inventory.yml").write_text(INVENTORY.format(service=place / "service"))
        new = Deployment(place, place, place / "inventory.yml", site="whitestar.deploy.site")
        with torn_down(new, "whitestar.deploy.tear_down") as deployment:
            yield deployment


@pytest.fixture(scope="module")
def output(deployment: Deployment) -> str:
    """What the runs of a life with planted secrets print."""
    return live(deployment)


def test_tarball_holds_what_a_stranger_needs_and_nothing_of_ours(artifact: Path) -> None:
    with tarfile.open(artifact) as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert {"MANIFEST.json", "README.md", "COPYING", "meta/runtime.yml", "playbooks/site.yml"} <= names
    assert not [name for name in names if name.startswith(("tests", ".")) or "__pycache__" in name]


@pytest.mark.slow
def test_output_and_processes_hold_no_secret(output: str) -> None:
    assert "PLAY RECAP" in output
    assert MARK.decode() not in output


@pytest.mark.slow
def test_the_planted_secrets_are_the_ones_in_use(deployment: Deployment, output: str) -> None:
    assert_in_use(deployment)


@pytest.mark.slow
def test_the_failure_report_of_a_failed_release_holds_no_secret(deployment: Deployment, output: str) -> None:
    assert_told_without_secrets(deployment, "write_tokens")


@pytest.mark.slow
def test_files_outside_of_secrets_hold_no_secret(deployment: Deployment, output: str) -> None:
    assert_only_in_secret_files(deployment)


@pytest.mark.slow
def test_secret_files_are_for_their_owner_alone(deployment: Deployment, output: str) -> None:
    assert_for_owners_alone(deployment)


@pytest.mark.slow
def test_stripped_artifact_deploys_by_itself(deployment: Deployment, output: str) -> None:
    """The last of these: it takes away what they have asked."""
    status, people = deployment.ask("GET", "/people")
    assert (status, len(people)) == (200, 887 + 1), "with the one who was written"

    again = deployment.run("whitestar.deploy.site")
    assert again.returncode == 0, again.stdout
    assert "changed=0 " in again.stdout

    gone = deployment.run("whitestar.deploy.tear_down", "-e", CONFIRMED)
    assert gone.returncode == 0, gone.stdout
    assert not deployment.state.exists()
    assert deployment.processes() == []
