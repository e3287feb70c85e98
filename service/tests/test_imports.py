"""The package's modules import one another in one direction: no module can meet another that is half imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import titanic_api

PACKAGE = "titanic_api"


def modules(source: Path) -> dict[str, Path]:
    """Every module of the package under ``source``, by its dotted name."""
    found = {}
    for path in source.rglob("*.py"):
        parts = path.relative_to(source.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module: str, path: Path) -> Iterator[str]:
    """Every dotted name that a module may import, wherever in it: at its top, in a function, for the type checker."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield base
            # ``from package import module`` imports the module; other names are dropped by the caller.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def with_packages(name: str) -> Iterator[str]:
    """A dotted name and the packages that it is in, whose ``__init__`` is run first."""
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def dependencies(source: Path) -> dict[str, set[str]]:
    """What each module of the package imports of it. That a module is in a package makes it no importer of that."""
    known = modules(source)
    return {
        module: {
            part
            for name in imported(module, path)
            for part in with_packages(name)
            if part in known and not f"{module}.".startswith(f"{part}.")
        }
        for module, path in known.items()
    }


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one import circle, empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_import_circle_in_titanic_api() -> None:
    graph = dependencies(Path(titanic_api.__file__).parent)
    assert f"{PACKAGE}.people.views" in graph[f"{PACKAGE}.people.blueprint"], "no import was found at all"
    assert circle(graph) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("from titanic_api import second", "def late():\n    from titanic_api.first import name"),
        ("from . import second", "import titanic_api.first"),
        ("from .second import name", "from .inner import name"),
        (
            "from titanic_api.inner.deep import name",
            "",
        ),
    ],
)
def test_an_import_circle_is_found(tmp_path: Path, first: str, second: str) -> None:
    """However it is written; ``inner`` imports ``first`` whichever part of it is asked for."""
    place = tmp_path / PACKAGE
    (place / "inner").mkdir(parents=True)
    texts = {
        "__init__.py": "",
        "first.py": first,
        "second.py": second,
        "inner/__init__.py": "from .. import first",
        "inner/deep.py": "",
    }
    for name, text in texts.items():
        (place / name).write_text(text, encoding="utf-8")
    assert "titanic_api.first" in circle(dependencies(place))
