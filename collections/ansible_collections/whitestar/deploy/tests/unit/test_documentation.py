# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plugin's documentation says of its options is what the plugin takes; nothing goes without a test."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils import basic
from ansible_collections.whitestar.deploy.tests.helpers import COLLECTION, COLLECTIONS, MODULES

PLUGINS = COLLECTION / "plugins"
NAMES = sorted(path.stem for path in (PLUGINS / "modules").glob("*.py"))
# Its work is done by the action plugin of the same name.
WITHOUT_MAIN = {"validate_inputs", "plan"}


class SpecificationTakenError(Exception):
    """Carries what a module hands to AnsibleModule."""


def specification(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The argument specification of a module, taken at the moment it is used."""

    def take(_self: object, argument_spec: dict[str, Any], **more: Any) -> None:
        raise SpecificationTakenError(argument_spec, more)

    monkeypatch.setattr(basic.AnsibleModule, "__init__", take)
    with pytest.raises(SpecificationTakenError) as caught:
        importlib.import_module(f"{MODULES}.{name}").main()
    assert caught.value.args[1].get("supports_check_mode") is True
    return dict(caught.value.args[0])


def compared(options: dict[str, Any], *, documented: bool) -> dict[str, Any]:
    """Options reduced to what both sides state."""
    inner = "suboptions" if documented else "options"
    return {
        name: {
            "type": option.get("type", "str"),
            "required": bool(option.get("required")),
            "default": option.get("default"),
            "choices": option.get("choices"),
            "elements": option.get("elements"),
            "options": compared(option.get(inner, {}), documented=documented),
        }
        for name, option in options.items()
    }


def options_of(name: str) -> dict[str, Any]:
    """A module's documented options, those of the fragments that it names included."""
    documentation = yaml.safe_load(importlib.import_module(f"{MODULES}.{name}").DOCUMENTATION)
    options: dict[str, Any] = dict(documentation.get("options", {}))
    named = documentation.get("extends_documentation_fragment", [])
    for fragment in [named] if isinstance(named, str) else named:
        name, _, part = fragment.removeprefix("whitestar.deploy.").partition(".")
        place = importlib.import_module(f"{MODULES.removesuffix('.modules')}.doc_fragments.{name}")
        found = getattr(place.ModuleDocFragment, part.upper() or "DOCUMENTATION")
        options |= yaml.safe_load(found)["options"]
    return options


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITHOUT_MAIN))
def test_documented_options_are_the_real_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = specification(name, monkeypatch)
    assert compared(options_of(name), documented=True) == compared(real, documented=False)


@pytest.mark.parametrize("name", NAMES)
def test_modules_say_what_they_do_in_check_and_diff_mode(name: str) -> None:
    documentation = yaml.safe_load(importlib.import_module(f"{MODULES}.{name}").DOCUMENTATION)
    assert documentation["module"] == name
    assert {"check_mode", "diff_mode"} <= set(documentation["attributes"])
    assert documentation["short_description"][-1] != "."


@pytest.mark.parametrize("name", NAMES)
def test_examples_name_options_that_exist(name: str) -> None:
    module = importlib.import_module(f"{MODULES}.{name}")
    options = options_of(name)
    examples = [task.get(f"whitestar.deploy.{name}") for task in yaml.safe_load(module.EXAMPLES)]
    assert any(examples)
    for given in filter(None, examples):
        assert set(given) <= set(options)
        assert {option for option, facts in options.items() if facts.get("required")} <= set(given)


def plugin_files() -> Iterator[Path]:
    for directory, _, files in os.walk(PLUGINS):
        yield from (Path(directory) / name for name in files if name.endswith(".py") and name != "__init__.py")


@pytest.mark.parametrize("path", sorted(plugin_files()), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_every_plugin_has_a_test_that_uses_it(path: Path) -> None:
    texts = "".join(
        item.read_text() for item in sorted(Path(__file__).parents[1].rglob("test_*.py")) if item != Path(__file__)
    )
    dotted = ".".join(path.relative_to(COLLECTIONS).with_suffix("").parts)
    used = f"whitestar.deploy.{path.stem}'" in texts or f'whitestar.deploy.{path.stem}"' in texts
    assert dotted in texts or f'run_module("{path.stem}"' in texts or f'.run("{path.stem}"' in texts or used


@pytest.mark.parametrize("path", sorted(plugin_files()), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_every_plugin_states_its_licence(path: Path) -> None:
    lines = path.read_text().splitlines()[:3]
    assert any(line.startswith("# GNU General Public License v3.0+") for line in lines)
    assert "# SPDX-License-Identifier: GPL-3.0-or-later" in lines
