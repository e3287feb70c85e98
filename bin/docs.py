"""Writes the generated parts of the documentation: roles and their variables, playbooks, promises, the bench's figures.

Called by ``make docs``; ``make docs ARGS=--check`` changes nothing and fails when a part is not current. Each part
stands between two marker comments. The tables come from the argument specifications and defaults (a role's README
without markers gets a section "Variables" at its end), the list of playbooks from what each says first of itself and
the tags of the site's, the promises from the module that asks for them, the figures from the committed
``bench/results/latest.md``, the drawing of the packages from the plugins' imports, that of the data flow from the site.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- begin variables: written by `make docs` from meta/argument_specs.yml -->"
END = "<!-- end variables -->"
PLAYBOOKS_BEGIN = "<!-- begin playbooks: written by `make docs` from what each says first of itself -->"
PLAYBOOKS_END = "<!-- end playbooks -->"
ROLES_BEGIN = "<!-- begin roles: written by `make docs` from meta/argument_specs.yml -->"
ROLES_END = "<!-- end roles -->"
PROMISES_BEGIN = "<!-- begin promises: written by `make docs` from roles/titanic_common/vars/main.yml -->"
PROMISES_END = "<!-- end promises -->"
COLLECTION = ROOT / "collections/ansible_collections/whitestar/deploy"
SHARED = "titanic_common"
BENCH_BEGIN = "<!-- begin bench: written by `make docs` from bench/results/latest.md -->"
BENCH_END = "<!-- end bench -->"
PLUGINS = COLLECTION / "plugins"
PREFIX = "ansible_collections.whitestar.deploy.plugins."
ARCHITECTURE = ROOT / "docs/developer/architecture.md"
IMPORTS_BEGIN = "<!-- begin imports: written by `make docs` from the text of the plugins -->"
IMPORTS_END = "<!-- end imports -->"
FLOW_BEGIN = "<!-- begin flow: written by `make docs` from playbooks/site.yml -->"
FLOW_END = "<!-- end flow -->"
RESULT = re.compile(r"\b(titanic_[a-z]+)_result\b((?:\.\w+)*)")


def roles() -> list[Path]:
    """Directories of all roles: the collection's and this checkout's own."""
    places = (COLLECTION / "roles", ROOT / "roles")
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
            lines += ["", "It takes no variables of its own."]
    if f"whitestar.deploy.{SHARED}" in load(role / "meta/main.yml").get("dependencies", []):
        lines += ["", f"Besides, it takes the [settings that roles share](../{SHARED}/README.md#variables)."]
    return "\n".join([*lines, "", END])


def replaced(text: str, begin: str, end: str, part: str) -> str:
    """A text with what stands between two markers replaced by a part that has the markers itself."""
    before, _, rest = text.partition(begin)
    return before + part + rest.partition(end)[2]


def role_readme(role: Path) -> str:
    """A role's README with its table current."""
    readme = role / "README.md"
    text = readme.read_text() if readme.is_file() else f"# {role.name}\n"
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n## Variables\n\n{BEGIN}\n{END}\n"
    if PROMISES_BEGIN in text:
        text = replaced(text, PROMISES_BEGIN, PROMISES_END, promises())
    return replaced(text, BEGIN, END, table(role))


def promises() -> str:
    """The table of what the Titanic API promises, markers included."""
    sys.path.insert(0, str(COLLECTION.parents[2]))
    module = importlib.import_module("ansible_collections.whitestar.deploy.plugins.module_utils.release.http_checks")
    lines = [PROMISES_BEGIN, "", "| promise | asked | what must come |", "|---|---|---|"]
    service = load(COLLECTION / "roles/titanic_common/vars/main.yml")["__titanic_common_service"]
    for promise in module.release_promises(service["promises"], "the release"):
        wanted = [str(promise["status"])]
        wanted += [
            f"`{name}` " + (f"begins with `{start}`" if start else "is there")
            for name, start in promise["headers"].items()
        ]
        wanted += [f"`{key}` is {value}" for key, value in promise["json"].items()]
        lines.append(f"| {promise['name']} | `GET {promise['path']}` | {'; '.join(wanted)} |")
    return "\n".join([*lines, "", PROMISES_END])


def role_list() -> str:
    """The table of the collection's roles that have variables, markers included."""
    lines = [ROLES_BEGIN, "", "| role | what it does |", "|---|---|"]
    for role in roles():
        entries = entry_points(role)
        if role.is_relative_to(COLLECTION) and entries:
            does = text_of(next(iter(entries.values()))["short_description"])
            lines.append(f"| [{role.name}](roles/{role.name}/README.md) | {does} |")
    return "\n".join([*lines, "", ROLES_END])


def site() -> list[dict[str, Any]]:
    """The stages of the site, in its order, each as a task that calls a role."""
    (play,) = yaml.safe_load((COLLECTION / "playbooks/site.yml").read_text())
    stages: list[dict[str, Any]] = play["tasks"][0]["block"]
    return stages


def playbooks() -> str:
    """The table of the collection's playbooks and the tags of the site's, markers included."""
    lines = [PLAYBOOKS_BEGIN, "", "| playbook | what it does |", "|---|---|"]
    for path in sorted((COLLECTION / "playbooks").glob("*.yml")):
        comment = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
        sentence = " ".join(comment).partition(". ")[0].removesuffix(".")
        lines.append(f"| `whitestar.deploy.{path.stem}` | {text_of(sentence)} |")
    # A stage that has no tag of its name belongs to another one's, and one with a condition has something to do seldom.
    stages = [(stage["name"].lower(), stage) for stage in site() if stage["name"].lower() in stage["tags"]]
    tags = [(name, "never" in stage["tags"] or "when" in stage) for name, stage in stages]
    always, asked = (", ".join(f"`{name}`" for name, never in tags if never == kind) for kind in (False, True))
    lines += ["", f"Tags of `site`, in its order: {always}; when they are asked for: {asked}."]
    return "\n".join([*lines, "", PLAYBOOKS_END])


def collection_readme() -> str:
    """The collection's README with the lists of its playbooks and its roles."""
    text = replaced((COLLECTION / "README.md").read_text(), PLAYBOOKS_BEGIN, PLAYBOOKS_END, playbooks())
    return replaced(text, ROLES_BEGIN, ROLES_END, role_list())


def bench_readme() -> str:
    """The bench's README with the ratios of its last committed run, or a word that there is none."""
    results = ROOT / "bench/results/latest.md"
    if not results.is_file():
        figures = "There is no committed result yet."
    else:
        introduction, _, rest = results.read_text().partition("\n\n")[2].partition("\n\n")
        ratios = rest.partition("\n\n")[2].partition("\n\nPackages:")[0]
        figures = f"{introduction}\n\n{ratios}\n\n![Requests per CPU second](results/latest.svg)"
    for name in ("compose", "kubernetes", "backup"):
        measured = ROOT / f"bench/results/{name}.md"
        if measured.is_file():
            figures += "\n\n" + measured.read_text().partition("\n\n")[2].rstrip()
    part = f"{BENCH_BEGIN}\n\n{figures}\n\n{BENCH_END}"
    return replaced((ROOT / "bench/README.md").read_text(), BENCH_BEGIN, BENCH_END, part)


def imports() -> dict[str, set[str]]:
    """Each file of the plugins, as ``module_utils.common.files``, and those that it imports anywhere in its text."""
    files = {".".join(path.relative_to(PLUGINS).with_suffix("").parts): path for path in PLUGINS.rglob("*.py")}
    return {name: {found for found in _imported(name, path) if found in files} for name, path in files.items()}


def _imported(name: str, path: Path) -> Iterator[str]:
    """The names of modules that a file may import; of ``from a import b`` both ``a`` and ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            here = (PREFIX + name).rpartition(".")[0]
            module = resolve_name("." * node.level + (node.module or ""), here) if node.level else str(node.module)
            found = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        yield from (each.removeprefix(PREFIX) for each in found if each.startswith(PREFIX))


def package(name: str) -> str:
    """The package of a file of module_utils; the kind of another plugin."""
    kind, *rest = name.split(".")
    return rest[0] if kind == "module_utils" else kind


def loaded(name: str, known: Mapping[str, set[str]]) -> set[str]:
    """Every file that one file loads, by way of others too, itself included."""
    seen, waiting = {name}, [name]
    while waiting:
        new = known[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def group(name: str) -> str:
    """What a plugin is listed with: modules by the first word of their names, others by their kind."""
    kind, _, module = name.partition(".")
    word = module.partition("_")[0]
    return f"modules `{word}_*`" if kind == "modules" and word in ("compose", "host", "kubernetes", "local") else kind


def drawing() -> str:
    """The packages' imports as a graph, and what each kind of plugin loads of them, markers included."""
    known = imports()
    utils = [name for name in known if name.startswith("module_utils.")]
    edges = {(package(name), package(other)) for name in utils for other in known[name]}
    lines = ["```mermaid", "graph TD", *(f"  {one} --> {other}" for one, other in sorted(edges) if one != other), "```"]
    lines += ["", "| plugins | packages that they load |", "|---|---|"]
    loads: dict[str, set[str]] = {}
    for name in known.keys() - set(utils):
        packages = {package(each) for each in loaded(name, known) if each.startswith("module_utils.")}
        loads.setdefault(group(name), set()).update(packages)
    lines += [f"| {plugins} | {', '.join(sorted(found))} |" for plugins, found in sorted(loads.items()) if found]
    return "\n".join([IMPORTS_BEGIN, "", *lines, "", IMPORTS_END])


def flow() -> str:
    """What each stage of the site is given of the results of earlier ones, as a graph, markers included."""
    calls: dict[str, str] = {}  # role -> the last stage that has called it
    lines = []
    for stage in site():
        given: dict[str, set[str]] = {}
        for role, key in RESULT.findall(json.dumps(stage.get("vars", {}))):
            given.setdefault(calls[role], set()).add(key[1:] or "its result")
        lines += [f'  {giver} -->|"{", ".join(sorted(keys))}"| {stage["name"]}' for giver, keys in given.items()]
        call = stage.get("ansible.builtin.import_role") or stage["ansible.builtin.include_role"]
        # Part of a role gives nothing back.
        if "tasks_from" not in call:
            calls[call["name"].rpartition(".")[2]] = stage["name"]
    return "\n".join([FLOW_BEGIN, "", "```mermaid", "graph LR", *lines, "```", "", FLOW_END])


def architecture() -> str:
    """The page on the architecture with its two drawings."""
    text = replaced(ARCHITECTURE.read_text(), IMPORTS_BEGIN, IMPORTS_END, drawing())
    return replaced(text, FLOW_BEGIN, FLOW_END, flow())


def current() -> dict[Path, str]:
    """Each file with a generated part, and the text it should have."""
    return {
        ROOT / "bench/README.md": bench_readme(),
        COLLECTION / "README.md": collection_readme(),
        ARCHITECTURE: architecture(),
        **{role / "README.md": role_readme(role) for role in roles()},
    }


def main(arguments: list[str]) -> int:
    """Writes, or with ``--check`` compares; returns 1 when a part was not current and nothing was to be written."""
    check = "--check" in arguments
    stale = {path: text for path, text in current().items() if not path.is_file() or path.read_text() != text}
    for path, text in stale.items():
        print(f"{'not current' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text)
    return int(bool(stale) and check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
