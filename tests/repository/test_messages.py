"""The texts of the plugins are in the form of the house: `variable: problem. Remedy.`, in short sentences."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interface import COLLECTION

PLUGINS = COLLECTION / "plugins"
FILES = sorted(str(path.relative_to(PLUGINS)) for path in PLUGINS.rglob("*.py"))
WORDS = 25
# How remedies begin.
VERBS = (
    "add apply ask bring change check choose correct delete deploy dump free give have install leave lock look make "
    "move name put quote remove rename restore resume run say see set start stop turn upgrade use wait write"
)
REMEDY = re.compile(rf"\S[:;] (?:{'|'.join(VERBS.split())})\b")
# A word for what follows is no problem, and a comment in a file that is written no message.
LABEL = re.compile(r"next: |Ansible's own output: |# ")


def texts(source: str) -> Iterator[str]:
    """Each text of a program line by line, with a word for what is filled in; no docstring, SQL or document."""
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    parts |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in parts:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "this" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if not re.search("^\n|^<!|SELECT|SET TimeZone|REVOKE|CREATE ROLE|{{", text):
            yield from text.splitlines()


def faults(line: str) -> list[str]:
    """What is wrong with a line of a message."""
    sentences = re.split(r"(?<=[.!?]) ", line)
    found = [f"more than {WORDS} words: {each}" for each in sentences if len(each.split()) > WORDS]
    found += [f"several semicolons: {each}" for each in sentences if each.count("; ") > 1]
    return found + [f"no sentence of its own: {each[0]}" for each in REMEDY.finditer(line) if not LABEL.match(line)]


@pytest.mark.parametrize("name", FILES)
def test_a_message_has_short_sentences_and_its_remedy_one_of_its_own(name: str) -> None:
    assert [fault for line in texts(Path(PLUGINS, name).read_text()) for fault in faults(line)] == []


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ('f"titanic_api_port: {port} is no port. Give a number from 1 to 65535."', []),
        ('f"titanic_api_port: {port} is no port: give a number"', ["no sentence of its own: t: give"]),
        ('"titanic_api_port: no port; " "choose one"', ["no sentence of its own: t; choose"]),
        ('"a; b; c"', ["several semicolons: a; b; c"]),
        (f'"{"word " * WORDS}more"', [f"more than 25 words: {'word ' * WORDS}more"]),
    ],
)
def test_what_is_not_in_the_form_is_found(message: str, wrong: list[str]) -> None:
    assert [fault for line in texts(f"raise ValueError({message})") for fault in faults(line)] == wrong
