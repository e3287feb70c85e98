"""Which collections a command needs, and how they are taken out of a wheel: for those who have no Galaxy.

No package carries one collection alone, so ``requirements/wheel.txt`` locks the package ``ansible``, which has them
all. It is downloaded and never installed: of its files three collections are unpacked, into ``.ansible/collections``,
which ``ansible.cfg`` names. A collection that lies there and was not unpacked here is somebody's own and stays.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

# The third is one that the second asks for.
COLLECTIONS = ("kubernetes/core", "community/docker", "community/library_inventory_filtering_v1")
# In each collection that was unpacked: the digest of the lock that its wheel was checked against.
MARK = ".unpacked"
WITHOUT = "local"
WITH = ("compose", "kubernetes")
SETTING = re.compile(r"""\btitanic_provider["']?\s*[:=]\s*["']?([\w{!]+)""")
COMMENT = re.compile(r"^\s*[#;].*$", re.MULTILINE)
INVENTORY = re.compile(r"(?:--inventory(?:-file)?=|-i(?!nventory))(.+)", re.DOTALL)
# In ansible.cfg.
DEFAULT_INVENTORY = re.compile(r"^inventory\s*=\s*(.+?)\s*$", re.MULTILINE)
# Of what the package says of itself: what it is, and its licences.
PAPERS = re.compile(r"\.dist-info/(METADATA$|licenses/)")
SUFFIXES = {"", ".yml", ".yaml", ".json", ".ini"}


def providers(command: Sequence[str], environment: Mapping[str, str], root: Path) -> set[str]:
    """The providers that need collections, of those that a command of Ansible's could deploy with.

    They are looked for in the text of its inventories and in its words. A value that only Ansible can read, such as a
    template, may be any.
    """
    if not (command and (Path(command[0]).name.startswith("ansible") or list(command[1:3]) == ["-m", "ansible"])):
        return set()
    texts = [" ".join(command), *(read(path) for path in files(command, environment, root))]
    values = {value for text in texts for value in SETTING.findall(COMMENT.sub("", text))}
    return {name for name in WITH if values - {WITHOUT, *WITH} or name in values}


def lost_inventories(command: Sequence[str], environment: Mapping[str, str], root: Path) -> list[Path]:
    """The inventories that a command of Ansible's names and that are not there."""
    if not (command and Path(command[0]).name.startswith("ansible")):
        return []
    return [path for path in inventories(command, environment, root) if not path.exists()]


def files(command: Sequence[str], environment: Mapping[str, str], root: Path) -> Iterator[Path]:
    """What a command of Ansible's reads variables from: inventories, and what it names with ``@``."""
    for place in inventories(command, environment, root):
        yield from below(place) if place.is_dir() else [place]
        if place.is_file():
            yield from beside(place)
    for word in command:
        if word.endswith((".yml", ".yaml")) and not word.startswith(("-", "@")):
            yield from beside(Path(word))
        if "@" in word:
            yield Path(word.partition("@")[2])


def inventories(command: Sequence[str], environment: Mapping[str, str], root: Path) -> list[Path]:
    """Where a command of Ansible's finds its inventories: its own words, else the environment's, else ansible.cfg's."""
    found = []
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word in ("-i", "--inventory", "--inventory-file"):
            found.append(following)
        elif attached := INVENTORY.fullmatch(word):
            found.append(attached[1])
    if not found:
        default = DEFAULT_INVENTORY.search(read(root / "ansible.cfg"))
        found = environment.get("ANSIBLE_INVENTORY", str(root / default[1]) if default else "").split(",")
    return [Path(name) for name in found if name and "," not in name]


def below(directory: Path) -> Iterator[Path]:
    """The files of an inventory's directory that Ansible would read."""
    for path in sorted(directory.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.suffix in SUFFIXES and path.is_file() and not hidden:
            yield path


def beside(file: Path) -> Iterator[Path]:
    """The variables that lie beside an inventory or a playbook."""
    for name in ("group_vars", "host_vars"):
        yield from below(file.parent / name)


def read(path: Path) -> str:
    """Text of a file, empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def missing(place: Path, digest: str) -> list[str]:
    """The collections under ``place`` that are not there, or were unpacked from another wheel than the lock's."""
    found = []
    for name in COLLECTIONS:
        home = place / "ansible_collections" / name
        theirs = (home / "MANIFEST.json").is_file() and not (home / MARK).exists()
        if not theirs and read(home / MARK) != digest:
            found.append(name)
    return found


def unpack(wheel: Path, scratch: Path, place: Path, names: Iterable[str], digest: str) -> None:
    """Put collections of a wheel under ``place``, each by one rename, with what says whose the wheel is.

    ``scratch`` is a directory of the same file system. Raises OSError, and KeyError for a wheel without one of them.
    """
    prefixes = tuple(f"ansible_collections/{name}/" for name in names)
    with zipfile.ZipFile(wheel) as archive:
        listed = archive.namelist()
        for prefix in prefixes:
            archive.getinfo(f"{prefix}MANIFEST.json")
        archive.extractall(scratch, [name for name in listed if name.startswith(prefixes) or PAPERS.search(name)])
    place.mkdir(parents=True, exist_ok=True)
    for papers in place.glob("*.dist-info"):
        shutil.rmtree(papers)
    for papers in scratch.glob("*.dist-info"):
        replace(papers, place / papers.name, scratch)
    for prefix in prefixes:
        (scratch / prefix / MARK).write_text(digest)
        replace(scratch / prefix, place / prefix, scratch)


def replace(new: Path, old: Path, scratch: Path) -> None:
    """Put a directory in the place of one that is there or not."""
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.exists():
        aside = scratch / f"old-{old.name}"
        shutil.rmtree(aside, ignore_errors=True)
        old.rename(aside)
    new.rename(old)
