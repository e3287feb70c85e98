"""bin/run prepares what a command needs: refuses what cannot work in one line, does nothing twice, repairs itself."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.tests.index_helpers import PASSWORD, WHEEL, private_index

from bin import bootstrap
from tests.repository.test_collections import make_wheel


class Checkout:
    """A copy of what the bootstrap consists of, with a set of one small package."""

    def __init__(self, place: Path, root: Path) -> None:
        self.place = place
        shutil.copytree(root / "bin", place / "bin", ignore=shutil.ignore_patterns("__pycache__"))
        index = bootstrap.PACKAGE_INDEX.relative_to(bootstrap.ROOT)
        (place / index).parent.mkdir(parents=True)
        shutil.copy(root / index, place / index)
        (place / "requirements").mkdir()
        shutil.copy(root / "requirements/bootstrap.txt", place / "requirements")
        self.small = locked("resolvelib", root / "requirements/deploy.txt")
        self.lock(self.small)

    def lock(self, text: str) -> None:
        (self.place / "requirements/small.txt").write_text(text)

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "TITANIC_PYTHON")}
        return {**kept, **extra}

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.place / "bin/run", "small", *command],
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=500,
        )

    def works(self) -> subprocess.CompletedProcess[str]:
        result = self.run("python", "-c", "import resolvelib, sys; print(sys.prefix)")
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == str(self.place / ".venv")
        return result


def locked(name: str, lock: Path) -> str:
    """The lines of a lock that pin one package."""
    text = lock.read_text()
    start = text.index(f"\n{name}==") + 1
    lines = [text[start:].splitlines()[0]]
    for line in text[start:].splitlines()[1:]:
        if not line.startswith("    --hash"):
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.fixture
def checkout(tmp_path: Path, root: Path) -> Checkout:
    place = tmp_path / "check out"  # a blank in the path, as people have it
    place.mkdir()
    return Checkout(place, root)


def stub(path: Path, first: str) -> str:
    """An interpreter that executes something before what it is told to."""
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; {first}; exec(sys.argv[1])" "$2"\n')
    path.chmod(0o755)
    return str(path)


def only_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_old_python_is_refused_in_one_line(checkout: Checkout, tmp_path: Path) -> None:
    old = stub(tmp_path / "python3", "sys.version_info = (3, 10, 13)")
    line = only_line(checkout.run("true", TITANIC_PYTHON=old))
    assert "3.10" in line
    assert "3.11 or later" in line
    assert not (checkout.place / ".venv").exists()


def test_python_without_venv_is_refused_with_the_remedy(checkout: Checkout, tmp_path: Path) -> None:
    bare = stub(tmp_path / "python3", "sys.modules['ensurepip'] = None")
    assert "python3-venv" in only_line(checkout.run("true", TITANIC_PYTHON=bare))


def test_no_python_is_refused(checkout: Checkout) -> None:
    assert "install Python 3.11 or later" in only_line(checkout.run("true", TITANIC_PYTHON="/nowhere/python3"))


def test_pythons_of_pyenv_come_last(checkout: Checkout, tmp_path: Path) -> None:
    """Two of the same version: the one that a distribution has built is quicker."""
    pyenv, own = tmp_path / "pyenv", tmp_path / "own"
    for place in (pyenv / "shims", pyenv / "versions/3.13.0/bin", own):
        place.mkdir(parents=True)
        (place / "python3.13").write_text('#!/bin/sh\n[ "$1" = -c ] && echo "$0" || echo "chosen: $0"\n')
        (place / "python3.13").chmod(0o755)
    path = os.pathsep.join([str(pyenv / "shims"), str(own), os.defpath])
    assert checkout.run("true", PATH=path, PYENV_ROOT=str(pyenv)).stdout == f"chosen: {own}/python3.13\n"
    (own / "python3.13").unlink()
    path = os.pathsep.join([str(pyenv / "shims"), str(tools(tmp_path))])
    chosen = f"chosen: {pyenv}/versions/3.13.0/bin/python3.13\n"
    assert checkout.run("true", PATH=path, PYENV_ROOT=str(pyenv)).stdout == chosen


def tools(place: Path) -> Path:
    """A directory with what bin/run calls, and no Python."""
    directory = place / "tools"
    directory.mkdir()
    for name in ("sh", "dirname", "tr", "grep"):
        (directory / name).symlink_to(str(shutil.which(name)))
    return directory


def test_unknown_set_is_refused(checkout: Checkout) -> None:
    result = subprocess.run([checkout.place / "bin/run", "smal"], capture_output=True, text=True)
    assert "the sets are small" in only_line(result)


def test_an_inventory_that_is_not_there_is_refused_before_anything_is_installed(checkout: Checkout) -> None:
    (checkout.place / "inventories/staging").mkdir(parents=True)
    command = ["ansible-playbook", "site.yml", "-i", "inventories/stagin"]
    result = subprocess.run(
        [checkout.place / "bin/run", "deploy", *command], cwd=checkout.place, capture_output=True, text=True
    )
    assert only_line(result).endswith(
        "inventories/stagin: there is no such inventory. This checkout has inventories/staging."
    )
    assert not (checkout.place / ".venv").exists()


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Checkout:
    """One that has been prepared, which tests go on with in their order, after an index that could not be reached."""
    place = tmp_path_factory.mktemp("ready") / "check out"
    place.mkdir()
    checkout = Checkout(place, root)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        result = checkout.run(
            "true", PIP_INDEX_URL=address, PIP_RETRIES="0", PIP_NO_CACHE_DIR="1", PIP_FIND_LINKS=str(place)
        )
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "check the network or pip's configuration" in last
    assert "Traceback" not in result.stderr
    # What an account has for its own work is none of ours.
    hostile = {
        "PIP_USER": "1",
        "PIP_TARGET": "/nowhere",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "UV_PYTHON": "2.7",
        "UV_SYSTEM_PYTHON": "1",
    }
    result = checkout.run("python", "-c", "import resolvelib", **hostile, PYTHONPATH="/nowhere", UV_NO_BINARY="1")
    assert result.returncode == 0, result.stderr
    assert ".venv is ready for small" in result.stderr
    return checkout


def test_second_run_does_nothing(ready: Checkout) -> None:
    before = {path: path.stat().st_mtime_ns for path in (ready.place / ".venv").rglob("*")}
    started = time.monotonic()
    second = ready.works()
    assert time.monotonic() - started < 20
    assert len(second.stderr.splitlines()) == 1, "says the command and nothing else"
    after = {path: path.stat().st_mtime_ns for path in (ready.place / ".venv").rglob("*")}
    assert {path: when for path, when in after.items() if "__pycache__" not in str(path)} == {
        path: when for path, when in before.items() if "__pycache__" not in str(path)
    }


def test_command_gets_its_arguments_and_gives_its_status(ready: Checkout) -> None:
    result = ready.run("python", "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "a b", "*")
    assert result.stdout == "['a b', '*']\n"
    assert result.returncode == 7


@pytest.mark.parametrize("given", [{"LANG": "xx_XX.UTF-8"}, {"LC_ALL": "C"}, {"LC_CTYPE": "POSIX"}])
def test_a_locale_without_utf8_is_left_for_one_that_has_it(ready: Checkout, given: dict[str, str]) -> None:
    nothing = {"LANG": "", "LC_ALL": "", "LC_CTYPE": ""}
    code = "import locale; locale.setlocale(locale.LC_ALL, ''); print(locale.nl_langinfo(locale.CODESET))"
    assert ready.run("python", "-X", "utf8=0", "-c", code, **nothing | given).stdout == "UTF-8\n"


def test_changed_lock_is_installed_and_wrong_hash_refused(ready: Checkout) -> None:
    ready.lock("resolvelib==1.2.0 --hash=sha256:" + "0" * 64 + "\n")
    result = ready.run("true")
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: uv failed")
    assert "its own words above say why" in last, "the index is not at fault"
    ready.lock(ready.small)
    ready.works()


def test_an_index_that_pips_configuration_alone_names_is_asked(ready: Checkout, tmp_path: Path) -> None:
    with private_index() as index:
        ready.lock(index.lock)
        account = index.account(tmp_path)
        told = [*os.environ, *account]
        hidden = {name: "" for name in told if name.startswith(("PIP_", "UV_")) and name not in account}
        result = ready.run("python", "-c", "import titanic_mirrored as m; print(m.ORIGIN)", **hidden | account)
        assert result.stdout == "the mirror\n", result.stderr
        assert f"/{WHEEL}" in index.asked
        ready.lock(index.lock.replace("==1.0", "==2.0"))
        failed = ready.run("true", **hidden | account)
    assert failed.returncode == 2
    assert PASSWORD not in result.stderr + failed.stderr
    ready.lock(ready.small)
    ready.works()


def test_who_deploys_to_a_cluster_gets_what_it_needs_and_nobody_else(
    ready: Checkout, root: Path, tmp_path: Path
) -> None:
    """Local: nothing. Containers: collections. A cluster: the client besides. All of it only once."""
    sets = ready.place / "requirements"
    (sets / "deploy.txt").write_text(ready.small)
    (sets / "collections.txt").write_text(ready.small + locked("packaging", root / "requirements/deploy.txt"))
    wheel = make_wheel(tmp_path, "99.0")
    (sets / "wheel.txt").write_text(f"ansible==99.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    for name in ("local", "compose", "kubernetes"):
        (tmp_path / name).write_text(f"titanic_provider: {name}\n")
    (ready.place / "ansible.cfg").write_text(f"[defaults]\ninventory = {tmp_path}/local\n")
    look = ready.place / "ansible-look"
    look.write_text(
        "#!/usr/bin/env python\nfrom importlib.util import find_spec\nprint(bool(find_spec('packaging')))\n"
    )
    look.chmod(0o755)
    unpacked = ready.place / ".ansible/collections/ansible_collections/kubernetes/core"

    def run(*words: str) -> tuple[str, int, bool]:
        told = {"PIP_FIND_LINKS": str(tmp_path)}
        result = subprocess.run(
            [ready.place / "bin/run", "deploy", look, *words],
            env=ready.environment(**told),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip(), len(result.stderr.splitlines()), unpacked.is_dir()

    run()  # the set itself
    assert run() == ("False", 1, False)
    assert run("-i", str(tmp_path / "local")) == ("False", 1, False)
    found, _, there = run("-i", str(tmp_path / "compose"))
    assert (found, there) == ("False", True)
    assert run("-i", str(tmp_path / "compose")) == ("False", 1, True)
    found, _, there = run("-i", str(tmp_path / "kubernetes"))
    assert (found, there) == ("True", True)
    assert run("-i", str(tmp_path / "kubernetes")) == ("True", 1, True)
    shutil.rmtree(ready.place / ".ansible")
    explicit = subprocess.run(
        [ready.place / "bin/run", "collections"],
        env=ready.environment(PIP_FIND_LINKS=str(tmp_path)),
        capture_output=True,
    )
    assert (explicit.returncode, unpacked.is_dir()) == (0, True)
    for name in ("deploy", "collections", "wheel"):
        (sets / f"{name}.txt").unlink()


def test_moved_checkout_is_rebuilt(ready: Checkout) -> None:
    ready.place = ready.place.rename(ready.place.parent / "elsewhere")
    assert "rebuilding .venv" in ready.works().stderr


def made_since(path: Path, when: float) -> bool:
    """Whether a path is there, and not from before a time (seconds since the epoch)."""
    try:
        return path.lstat().st_mtime >= when
    except FileNotFoundError:
        return False


def test_interrupted_runs_are_repaired(checkout: Checkout) -> None:
    command = [str(checkout.place / "bin/run"), "small", "true"]
    for moment in (".venv/bin/python", ".venv/bin/pip", ".venv/.stamps/installing"):
        began = time.time()
        process = subprocess.Popen(
            command, env=checkout.environment(), stderr=subprocess.DEVNULL, start_new_session=True, cwd=checkout.place
        )
        while not made_since(checkout.place / moment, began) and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, f"it was done before {moment} was seen"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    checkout.works()


def test_two_at_once_rebuild_a_half_made_environment_and_wait_for_each_other(checkout: Checkout) -> None:
    (checkout.place / ".venv/bin").mkdir(parents=True)
    (checkout.place / ".venv/bin/python").symlink_to("/nowhere/python3")
    command = [str(checkout.place / "bin/run"), "small", "python", "-c", "import resolvelib"]
    both = [subprocess.Popen(command, env=checkout.environment(), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [process.communicate(timeout=500)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    for said in ("rebuilding .venv", ".venv is ready"):
        assert sum(said in text for text in results) == 1, results


def test_what_pip_was_told_reaches_uv(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    told = {
        "PATH": os.environ["PATH"],
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
    }
    settings = bootstrap.pip_settings(told)
    assert settings["UV_DEFAULT_INDEX"] == "http://127.0.0.1:9/simple"
    assert settings["UV_FIND_LINKS"] == str(wheels)
    assert "UV_DEFAULT_INDEX" not in bootstrap.pip_settings({**told, "UV_DEFAULT_INDEX": "x"}), "uv's own setting wins"
