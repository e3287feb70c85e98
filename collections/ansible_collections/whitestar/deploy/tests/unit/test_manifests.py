# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload of a release becomes objects of Kubernetes, on which users may lay their own."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import (
    LEAVE_SECONDS,
    RELEASE,
    command_job,
    deep_merge,
    labels,
    merge_overrides,
    release_objects,
)
from ansible_collections.whitestar.deploy.tests.cluster_helpers import objects_of, tiny_job, tiny_release

WORKLOAD = tiny_release("a" * 12, TINY_BEHAVIOUR="good") | {"overrides": {}}


def made(**more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    settings, deployment = release_objects(WORKLOAD | more, 30, 10)
    return settings, deployment


def test_a_release_has_settings_of_its_own_that_its_pods_read() -> None:
    settings, deployment = made()
    release = WORKLOAD["release"]
    assert settings["metadata"]["name"] == f"titanic-api-{release}"
    assert settings["immutable"] is True
    assert settings["data"]["TINY_BEHAVIOUR"] == "good"
    assert settings["data"]["TITANIC_BIND"] == "0.0.0.0:8000"
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    assert container["command"] == ["python3", "serve"]
    assert container["resources"]["limits"] == {"memory": "160Mi", "cpu": "500m"}
    assert template["metadata"]["annotations"][RELEASE] == release
    assert template["metadata"]["labels"].items() >= labels("api").items()
    assert deployment["spec"]["selector"] == {"matchLabels": labels("api")}
    assert "replicas" not in deployment["spec"], "how many there are is not the release's business"


def test_a_pod_serves_on_while_others_hear_that_it_leaves_and_then_finishes_what_it_has() -> None:
    spec = made()[1]["spec"]["template"]["spec"]
    assert spec["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}}
    assert spec["terminationGracePeriodSeconds"] > 10 + LEAVE_SECONDS


def test_no_pod_is_taken_away_before_there_is_another() -> None:
    assert made()[1]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_pods_are_hardened(kind: str) -> None:
    """What Pod Security restricted demands, and a file system that nobody writes to."""
    thing = made()[1] if kind == "Deployment" else tiny_job("true")
    spec = thing["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_secrets_are_files_of_the_pod() -> None:
    spec = made()[1]["spec"]["template"]["spec"]
    assert spec["volumes"][0]["secret"] == {"secretName": "titanic-api", "defaultMode": 0o440}
    assert spec["containers"][0]["volumeMounts"][0] == {
        "name": "secrets",
        "mountPath": "/run/titanic",
        "readOnly": True,
    }


def test_a_command_runs_once_with_what_it_needs() -> None:
    settings = {
        "image": "i",
        "command": ["titanic-api", "migrate"],
        "environment": {"B": 2, "A": "1"},
        "secret": "titanic-owner",
        "directory": "/run/titanic",
        "user": 10001,
        "seconds": 60.0,
    }
    spec = command_job(settings)["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 60)
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["serviceAccountName"] == "titanic-job"
    (container,) = pod["containers"]
    assert container["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    assert pod["volumes"][0]["secret"]["secretName"] == "titanic-owner"
    assert "stdin" not in container
    fed = command_job(settings | {"stdin": True})["spec"]["template"]["spec"]["containers"][0]
    assert (fed["stdin"], fed["stdinOnce"]) == (True, True)


@pytest.mark.parametrize(
    ("base", "over", "both"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}, "e": 5}, {"a": 1, "b": {"c": 4, "d": 3}, "e": 5}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        (
            [{"name": "x", "v": 1}, {"name": "y", "v": 2}],
            [{"name": "z", "v": 4}, {"name": "y", "v": 3}],
            [{"name": "x", "v": 1}, {"name": "y", "v": 3}, {"name": "z", "v": 4}],
        ),
        ([{"name": "x"}], [], []),
        ([], [{"name": "x"}], [{"name": "x"}]),
        ([{"name": "x"}], [{"topology": "y"}], [{"topology": "y"}]),
        ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_one_thing_is_laid_over_another(base: Any, over: Any, both: Any) -> None:
    before = repr((base, over))
    assert deep_merge(base, over) == both
    assert repr((base, over)) == before


def test_users_lay_their_own_over_a_release() -> None:
    over = {"spec": {"template": {"spec": {"containers": [{"name": "api", "resources": {"limits": {"cpu": "2"}}}]}}}}
    (container,) = made(overrides=over)[1]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "160Mi", "cpu": "2"}
    assert container["command"] == ["python3", "serve"]


def test_users_lay_their_own_over_objects_of_a_kind() -> None:
    service = {"kind": "Service", "metadata": {"name": "s"}, "spec": {"type": "ClusterIP"}}
    budget = {"kind": "PodDisruptionBudget", "metadata": {"name": "b"}}
    found = merge_overrides([service, budget], {"Service": {"spec": {"type": "LoadBalancer"}}})
    assert found == [service | {"spec": {"type": "LoadBalancer"}}, budget]


def test_the_tests_release_is_one_of_these() -> None:
    settings, deployment = objects_of(tiny_release("b" * 12))
    assert settings["kind"] == "ConfigMap"
    assert deployment["spec"]["minReadySeconds"] == 0
    assert [volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]] == [
        "secrets",
        "scratch",
        "program",
    ]
