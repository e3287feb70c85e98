"""Writes the variable tables in the roles' READMEs from their argument specifications and defaults.

Called by ``make docs``; ``make docs ARGS=--check`` changes nothing and fails when a table is not current. A table
stands between two marker comments; a README without them gets a section "Variables" at its end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- begin variables: written by `make docs` from meta/argument_specs.yml -->"
END = "<!-- end variables -->"


def roles() -> list[Path]:
    """Directories of all roles: the collection's and this checkout's own."""
    places = (ROOT / "collections/ansible_collections/whitestar/deploy/roles", ROOT / "roles")
    return sorted(path.parent.parent for place in places for path in place.glob("*/meta/argument_specs.yml"))


def load(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; empty when it is not there or holds nothing."""
    if not path.is_file():
        return {}
    data = yaml.safe_load(path.read_text())
    return data if isinstance(data, dict) else {}


def entry_points(role: Path) -> dict[str, dict[str, Any]]:
    """Entry point -> its specification, ``main`` first."""
    specs: dict[str, dict[str, Any]] = load(role / "meta/argument_specs.yml")["argument_specs"]
    return dict(sorted(specs.items(), key=lambda item: (item[0] != "main", item[0])))


def text_of(description: str | list[str]) -> str:
    """A description as one paragraph that a table cell can hold."""
    parts = [description] if isinstance(description, str) else description
    return " ".join(" ".join(part.split()) for part in parts).replace("|", "\\|")


def shown_default(name: str, option: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """What the table says of a default: its value as code, ``required``, or that there is none."""
    if option.get("required"):
        return "required"
    value = defaults.get(name, option.get("default"))
    if value is None:
        return "none"
    # a template is folded into one line; | would end the cell
    text = value if isinstance(value, str) else json.dumps(value)
    return "`" + " ".join(text.split()).replace("|", "\\|") + "`"


def shown_type(option: Mapping[str, Any]) -> str:
    """Type with its elements and choices: ``list of str``, ``str: a, b``."""
    kind = str(option.get("type", "str"))
    if "elements" in option:
        kind += f" of {option['elements']}"
    if "choices" in option:
        kind += ": " + ", ".join(f"`{choice}`" for choice in option["choices"])
    return kind


def rows(options: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Table rows of options, those inside of dictionaries below their owner as ``owner.key``."""
    for name in sorted(options):
        option = options[name]
        cells = [
            f"`{prefix}{name}`",
            shown_type(option),
            shown_default(name, option, {} if prefix else defaults),
            text_of(option.get("description", "")),
        ]
        yield "| " + " | ".join(cells) + " |"
        yield from rows(option.get("options", {}), {}, f"{prefix}{name}.")


def table(role: Path) -> str:
    """The generated part of a role's README, markers included."""
    defaults = load(role / "defaults/main.yml")
    lines = [BEGIN]
    entries = entry_points(role)
    for entry, spec in entries.items():
        if len(entries) > 1:
            lines += ["", f"Entry point `{entry}`: {text_of(spec.get('short_description', ''))}"]
        options = spec.get("options", {})
        if options:
            lines += ["", "| variable | type | default | meaning |", "|---|---|---|---|", *rows(options, defaults)]
        else:
            lines += ["", "It takes no variables."]
    return "\n".join([*lines, "", END])


def rendered(role: Path) -> str:
    """A role's README with its table current."""
    readme = role / "README.md"
    text = readme.read_text() if readme.is_file() else f"# {role.name}\n"
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n## Variables\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    return before + table(role) + rest.partition(END)[2]


def main(arguments: list[str]) -> int:
    """Writes, or with ``--check`` compares; returns 1 when a table was not current and nothing was to be written."""
    stale = [
        role
        for role in roles()
        if not (role / "README.md").is_file() or (role / "README.md").read_text() != rendered(role)
    ]
    for role in stale:
        print(f"{'not current' if '--check' in arguments else 'written'}: {role.relative_to(ROOT)}/README.md")
        if "--check" not in arguments:
            (role / "README.md").write_text(rendered(role))
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
