"""Makes .venv with a named set of hash-locked requirements, does nothing that is done, then runs a command in it.

Called by ``bin/run SET COMMAND…`` with a Python of 3.11 or later; only the standard library is used. A set is a pair
of files ``requirements/SET.in`` and ``requirements/SET.txt``; its lock is installed with every hash checked. Stamps
under ``.venv/.stamps`` hold the hash of what was installed, so that a second run starts the command at once. An
installation that was cut short leaves ``.venv/.stamps/installing`` behind, and the next run starts afresh.

A command that deploys to containers or a cluster gets the collections that these stand on besides, and for a cluster
the set ``collections`` in the place of ``deploy``: the inventories that it names say so (bin/wheel_collections.py).
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import hashlib
import locale
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# For the other files of this directory; a script finds those beside it alone, by names that others have too.
sys.path.append(str(ROOT))
from bin import wheel_collections  # noqa: E402

VENV = ROOT / ".venv"
STAMPS = VENV / ".stamps"
MINIMUM = (3, 11)
# How pip's configuration is read is one for this file, releases, tools and images.
PACKAGE_INDEX = ROOT / "collections/ansible_collections/whitestar/deploy/plugins/module_utils/common/package_index.py"

# Where ansible.cfg looks for collections beside ours; the wheel that has them, and the sets that come with them.
COLLECTIONS = ROOT / ".ansible" / "collections"
SCRATCH = ROOT / ".ansible" / "unpacking"
WHEEL = "wheel"
WITH_COLLECTIONS = ("collections", "test", "bench")

# Of what people tell pip and uv, only where packages come from; where they go, and how, is ours.
SOURCES = re.compile(
    r"(PIP|UV)_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|NO_INDEX|FIND_LINKS|CERT|CLIENT_CERT|PROXY|TRUSTED_HOST|"
    r"INSECURE_HOST|RETRIES|TIMEOUT|DEFAULT_TIMEOUT|HTTP_TIMEOUT|OFFLINE|CACHE_DIR|NO_CACHE_DIR|CONFIG_FILE|"
    r"SYSTEM_CERTS|NATIVE_TLS)"
)
NO_INDEX = (
    "the package index could not be reached, or lacks a package: "
    "check the network or pip's configuration, then run the same command again"
)
# Words of pip and uv about that; any other failure has another cause.
OF_THE_INDEX = re.compile(
    r"connect|fetch|timed? ?out|dns|resolve host|Name or service|certificate|SSL|error sending request|HTTP|"
    r"No matching distribution|package registry|no version of|not find a version|unavailable",
    re.IGNORECASE,
)


# A package that is not the one that was locked, in pip's words and in uv's; an address stands beside them.
OF_THE_LOCK = re.compile(r"not match the hashes|hash mismatch", re.IGNORECASE)


class BootstrapError(Exception):
    """What went wrong and what to do about it, in one line."""


def requirement_sets() -> list[str]:
    """Names of the sets that have a lock file."""
    return sorted(path.stem for path in (ROOT / "requirements").glob("*.txt") if path.stem not in ("bootstrap", WHEEL))


def base_interpreter() -> str:
    """Path of the interpreter that virtual environments are made from, also when this one runs inside one."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def digest(*parts: str | bytes) -> str:
    """SHA-256 (hex) over the parts, each delimited by its length."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(b"%d:" % len(data) + data)
    return total.hexdigest()


def lock_file(name: str) -> Path:
    """The lock of a set.

    Raises BootstrapError when there is none.
    """
    path = ROOT / "requirements" / f"{name}.txt"
    if not path.is_file():
        raise BootstrapError(f"no requirements/{name}.txt: the sets are {', '.join(requirement_sets())}")
    return path


def venv_digest() -> str:
    """What a .venv depends on: its place (scripts hold absolute paths), the interpreter, the installer, this file."""
    own = Path(__file__).read_bytes()
    return digest(str(ROOT), base_interpreter(), sys.version, lock_file("bootstrap").read_bytes(), own)


def read(path: Path) -> str:
    """Text of a stamp, empty when there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def say(command: list[str]) -> None:
    """Shows a command before it runs, with paths as seen from the checkout."""
    words = [word.removeprefix(f"{ROOT}/") for word in command]
    print("+ " + shlex.join(words), file=sys.stderr, flush=True)


def run(command: list[str], environment: Mapping[str, str], remedy: str) -> None:
    """Runs a step of the installation and shows it.

    Raises BootstrapError when it fails, with the remedy unless that is about the index and the tool says something
    else; the tool's own words stand above it.
    """
    say(command)
    started = time.monotonic()
    said = []
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as tool:
        assert tool.stderr
        for line in tool.stderr:
            sys.stderr.write(line)
            said.append(line)
    if tool.returncode != 0:
        words = "".join(said)
        if remedy == NO_INDEX and (OF_THE_LOCK.search(words) or not OF_THE_INDEX.search(words)):
            remedy = "its own words above say why"
        raise BootstrapError(f"{Path(command[0]).name} failed with status {tool.returncode}: {remedy}")
    print(f"  {time.monotonic() - started:.1f} s", file=sys.stderr)


def ours(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of an installation: without what would have pip or uv install elsewhere or otherwise."""
    found = {
        name: value
        for name, value in environment.items()
        if SOURCES.fullmatch(name) or not name.startswith(("PIP_", "UV_", "PYTHON", "VIRTUAL_ENV"))
    }
    # A file of pip's may say so too; the environment is stronger.
    return found | {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "UV_NO_CONFIG": "1"}


def pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What the user told pip (files and PIP_* variables), as environment variables for uv.

    A value that the environment already has for uv wins.
    """
    found: dict[str, str] = runpy.run_path(str(PACKAGE_INDEX))["uv_variables"](environment)
    return found


def activated(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command that runs inside .venv."""
    result = {name: value for name, value in environment.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    if not has_utf8():
        # Ansible refuses to work in any other; this one is part of the C library (glibc from 2.35 on).
        result["LC_ALL"] = "C.UTF-8"
    result["VIRTUAL_ENV"] = str(VENV)
    result["PATH"] = f"{VENV / 'bin'}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return result


def has_utf8() -> bool:
    """Whether the locale of this process is there and its encoding is UTF-8."""
    try:
        locale.setlocale(locale.LC_ALL, "")
    except locale.Error:
        return False
    return codecs.lookup(locale.nl_langinfo(locale.CODESET)).name == "utf-8"


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Holds the checkout's lock, so that two runs do not build the same .venv at once.

    The lock is on the directory itself: no file is left behind, and the kernel lets go of it when we die.
    """
    handle = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another run that is preparing .venv", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_venv(environment: Mapping[str, str]) -> None:
    """Makes an empty .venv that holds pip and uv, in place of one that is missing, unfinished, stale or moved."""
    if VENV.exists() or VENV.is_symlink():
        print("rebuilding .venv: it is unfinished, or its interpreter or place has changed", file=sys.stderr)
        if VENV.is_symlink():
            raise BootstrapError(".venv is a symbolic link: remove it, and the next run makes a directory")
        shutil.rmtree(VENV)
    run(
        [base_interpreter(), "-m", "venv", str(VENV)],
        environment,
        "install the venv module (Debian: apt install python3-venv), or see that the checkout can be written",
    )
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "--only-binary=:all:", "-r", str(lock_file("bootstrap"))], environment, NO_INDEX)
    # The service is imported from the checkout by what runs inside .venv, and by nothing else: a PYTHONPATH would also
    # reach the programs of deployed releases.
    site = VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "titanic_checkout.pth").write_text(f"{ROOT / 'service' / 'src'}\n")
    STAMPS.mkdir()
    (STAMPS / "venv").write_text(venv_digest())


def install(name: str, environment: Mapping[str, str]) -> None:
    """Installs the lock of a set into .venv, every hash checked."""
    busy = STAMPS / "installing"
    busy.write_text(name)
    lock = lock_file(name)
    uv = [str(VENV / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(VENV / "bin" / "python")]
    settings = {**environment, **pip_settings(environment)}
    # A lock names all that is needed, and leaves out what a package asks for in vain (bin/lock.py).
    run([*uv, "--require-hashes", "--no-deps", "--compile-bytecode", "-r", str(lock)], settings, NO_INDEX)
    (STAMPS / name).write_text(digest(lock.read_bytes()))
    busy.unlink()


def prepare(name: str, environment: Mapping[str, str]) -> bool:
    """Brings .venv to the state that a set asks for; returns whether anything had to be done."""
    wanted = digest(lock_file(name).read_bytes())
    if ready(name, wanted):
        return False
    with only_one():
        if ready(name, wanted):  # another run did it while this one waited
            return False
        started = time.monotonic()
        environment = ours(environment)
        if read(STAMPS / "venv") != venv_digest() or (STAMPS / "installing").exists():
            make_venv(environment)
        install(name, environment)
        print(f".venv is ready for {name} ({time.monotonic() - started:.1f} s)", file=sys.stderr)
    return True


def prepare_collections(environment: Mapping[str, str]) -> bool:
    """Has the collections lie where ansible.cfg looks for them; returns whether anything had to be done.

    Whatever cuts this short leaves each of them whole, old or new, and the next run brings the rest.
    """
    lock = lock_file(WHEEL)
    wanted = digest(lock.read_bytes())
    if not wheel_collections.missing(COLLECTIONS, wanted):
        return False
    with only_one():
        names = wheel_collections.missing(COLLECTIONS, wanted)
        if not names:  # another run did it while this one waited
            return False
        started = time.monotonic()
        shutil.rmtree(SCRATCH, ignore_errors=True)
        SCRATCH.mkdir(parents=True)
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        # For the Python that the package asks for; what is unpacked of it runs on the oldest of ours too.
        alone = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version", "3.13"]
        run([*pip, *alone, "--dest", str(SCRATCH), "-r", str(lock)], ours(environment), NO_INDEX)
        (wheel,) = SCRATCH.glob("*.whl")
        wheel_collections.unpack(wheel, SCRATCH, COLLECTIONS, names, wanted)
        shutil.rmtree(SCRATCH)
        told = ", ".join(name.replace("/", ".") for name in names)
        print(f"{told}: unpacked ({time.monotonic() - started:.1f} s)", file=sys.stderr)
    return True


def ready(name: str, wanted: str) -> bool:
    """Whether .venv is whole and holds this lock of the set."""
    if (STAMPS / "installing").exists() or read(STAMPS / "venv") != venv_digest():
        return False
    return read(STAMPS / name) == wanted


def main(arguments: list[str]) -> int:
    """Prepares the set that the first argument names, then becomes the command that the others make up.

    Returns 0, or 2 after one line on what is wrong and what to do; does not return when there is a command.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: bin/run SET [COMMAND …]   (sets: {', '.join(requirement_sets())})", file=sys.stderr)
        return 2
    if sys.version_info < MINIMUM:
        print(f"error: this is Python {sys.version.split()[0]}: Python 3.11 or later is needed.", file=sys.stderr)
        return 2
    name, command = arguments[0], arguments[1:]
    if name == "deploy" and (lost := wheel_collections.lost_inventories(command, os.environ, ROOT)):
        known = sorted(f"inventories/{path.name}" for path in ROOT.glob("inventories/*/"))
        print(f"error: {lost[0]}: there is no such inventory. This checkout has {', '.join(known)}.", file=sys.stderr)
        return 2
    providers = wheel_collections.providers(command, os.environ, ROOT) if name == "deploy" else set()
    if "kubernetes" in providers:
        name = "collections"
    try:
        prepare(name, os.environ)
        if providers or name in WITH_COLLECTIONS:
            prepare_collections(os.environ)
    except (BootstrapError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; the next run repairs what is unfinished", file=sys.stderr)
        return 130
    if not command:
        return 0
    environment = activated(os.environ)
    say(command)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
