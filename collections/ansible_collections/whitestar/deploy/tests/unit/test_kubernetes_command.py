# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answer of a command is found in what it printed, and its pod is like those that serve."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.jobs import _read, job_of
from ansible_collections.whitestar.deploy.tests.cluster_helpers import (
    objects_of,
    tiny_release,
)


@pytest.mark.parametrize(
    ("output", "answer", "rest"),
    [
        ("", None, ""),
        ("words\nmore", None, "words\nmore"),
        ('{"a": 1}', {"a": 1}, ""),
        ('before\n{"a": 1}\nafter', {"a": 1}, "before\nafter"),
        ('{"a": 1}\n{"b": 2}\n7', {"b": 2}, '{"a": 1}\n7'),
        ("[1]\nnull", None, "[1]\nnull"),
    ],
)
def test_the_answer_is_the_last_line_that_is_one(output: str, answer: Any, rest: str) -> None:
    assert _read(output) == (answer, rest)


def test_another_command_of_a_release_runs_in_a_pod_like_those_that_serve() -> None:
    objects = objects_of(tiny_release("b" * 12))
    before = repr(objects)
    job = job_of(objects, ["check", "--now"])
    assert repr(objects) == before
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["command"] == ["python3", "check", "--now"]
    assert not {"livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "ports"} & set(container)
    assert spec["restartPolicy"] == "Never"
    assert job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "job"
    assert container["envFrom"] == objects[1]["spec"]["template"]["spec"]["containers"][0]["envFrom"]
