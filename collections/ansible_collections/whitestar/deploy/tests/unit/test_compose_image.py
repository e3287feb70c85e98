# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into an image is in its name, and what is excluded is not sent."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.progress import report, reported, share
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.image_build import registry_of, report_step
from ansible_collections.whitestar.deploy.plugins.plugin_utils.build_context import BuildContext
from ansible_collections.whitestar.deploy.plugins.plugin_utils.dockerfile import wrong_arguments
from ansible_collections.whitestar.deploy.tests.helpers import DOCKERFILE, build_context


@pytest.fixture
def context(place: Path) -> Path:
    return build_context(place)


def test_everything_that_goes_in_is_in_the_name(context: Path) -> None:
    dockerfiles = {"Dockerfile": context.parent / "Dockerfile"}

    def name(exclude: tuple[str, ...] = ("tests",), platforms: tuple[str, ...] = (), **arguments: str) -> str:
        return BuildContext(context, list(exclude), dockerfiles, arguments, list(platforms)).identity()

    first = name()
    assert len(first) == 12
    (context / "tests" / "test_code").write_text("assert False\n")
    os.utime(context / "code", (1, 1))
    assert name() == first
    seen = {first, name(()), name(version="2"), name(platforms=("a", "b"))}
    assert name(platforms=("b", "a")) in seen
    (context / "code").chmod(0o755)
    seen.add(name())
    (context / "code").write_text("print('changed')\n")
    seen.add(name())
    (context.parent / "Dockerfile").write_text(DOCKERFILE + "USER 1\n")
    seen.add(name())
    assert len(seen) == 7


def test_what_is_excluded_is_not_sent(context: Path) -> None:
    archive = context.parent / "context.tar.gz"
    (context / "link").symlink_to("code")
    BuildContext(context, ["tests"], {"Dockerfile": context.parent / "Dockerfile"}, {}, []).pack(archive)
    with tarfile.open(archive) as tar:
        assert sorted(tar.getnames()) == ["Dockerfile", "context/code", "context/link"]
        assert tar.getmember("context/link").issym()


@pytest.mark.parametrize(
    ("repository", "registry"),
    [
        ("titanic", "docker.io"),
        ("whitestar/titanic", "docker.io"),
        ("localhost/titanic", "localhost"),
        ("127.0.0.1:5000/titanic", "127.0.0.1:5000"),
        ("registry.example.org/a/b", "registry.example.org"),
    ],
)
def test_the_registry_that_a_name_means(repository: str, registry: str) -> None:
    assert registry_of(repository) == registry


@pytest.mark.parametrize(
    "head",
    [
        "ARG A\n",
        "# syntax=docker/dockerfile:1\n# escape=`\n  arg `\n # why\n\n  A=`\n 1\n",
        "FROM x\nARG B='b c' \"A=a\" \nRUN ARG C",
        'ARG B="${X:-\\\n two}" A',
        "ARG B=it's A",
    ],
)
def test_arguments_are_read_as_buildkit_reads_them(head: str) -> None:
    named = {"A": "1", "https_proxy": "x", "BUILDKIT_INLINE_CACHE": 1, "TARGETARCH": "x", "SOURCE_DATE_EPOCH": 0}
    assert wrong_arguments(head, named) == []
    (wrong,) = wrong_arguments(head, {"C": "1"})
    assert "the Dockerfile has no ARG C; it has " in wrong


def test_steps_of_a_build_are_reported() -> None:
    share()
    for line in ("#7 [base 1/2] FROM python:3.13\n", "#7 CACHED\n", "#8 0.2 Collecting flask\n"):
        report_step(line)
    assert reported() == "[base 1/2] FROM python:3.13"
    report("")
