# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of the roles as a Kustomize tree and a Helm chart, whatever the database and the way in are."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.whitestar.deploy.plugins.filter.manifests import FilterModule
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import command_job, release_objects
from ansible_collections.whitestar.deploy.plugins.plugin_utils.helm_chart import Marks
from ansible_collections.whitestar.deploy.plugins.plugin_utils.kustomize import OPTIONS
from ansible_collections.whitestar.deploy.plugins.plugin_utils.manifest_export import JOB, as_yaml, exported
from ansible_collections.whitestar.deploy.tests.helpers import tiny_workload

IMAGE = "registry.test/api@sha256:1"
SERVER_IMAGE = "postgres:17"
SECRETS: dict[str, Any] = {
    "readers": {
        "titanic-api": {"database_app_password": "database_app_password"},
        "titanic-owner": {"database_owner_password": "database_owner_password"},
        "titanic-database": {"database_superuser_password": "database_superuser_password"},
    },
    "plain": {},
    "types": {},
    "objects": [],
}
manifests, held = (FilterModule().filters()[name] for name in ("manifests", "secret_keys"))


def thing(kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **content}


def job(command: str) -> dict[str, Any]:
    own = {"image": IMAGE, "command": ["titanic-api", command], "environment": {"A": "1"}, "secret": "titanic-owner"}
    return command_job(own | {"directory": "/run/titanic", "user": 10001, "seconds": 600})


def server() -> dict[str, Any]:
    container = {"name": "postgresql", "image": SERVER_IMAGE, "resources": {"requests": {"cpu": "250m"}}}
    volumes = [{"name": "secrets", "secret": {"secretName": "titanic-database"}}]
    pod = {"spec": {"containers": [container], "volumes": volumes}}
    claim = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    return thing("StatefulSet", "titanic-database", spec={"template": pod, "volumeClaimTemplates": [claim]})


def scaler() -> dict[str, Any]:
    return thing("HorizontalPodAutoscaler", "titanic-api", spec={"minReplicas": 2, "maxReplicas": 5})


def ingress(**spec: Any) -> dict[str, Any]:
    return thing("Ingress", "titanic-api", spec={"rules": [{"host": "titanic.test"}], **spec})


def stages(*front: dict[str, Any], database: dict[str, Any] | None = None) -> dict[str, Any]:
    workload = tiny_workload(IMAGE, "abc", TITANIC_NOTE="{{ braces }}", TITANIC_DATABASE_HOST="titanic-database")
    workload |= {"secret_files": {"database_password": "/run/titanic/database_app_password"}, "overrides": {}}
    return {
        "target": [thing("Namespace", "titanic"), thing("ResourceQuota", "titanic", spec={"hard": {"pods": "30"}})],
        "secrets": [],
        "database": [database or server()],
        "api": [*front, *release_objects(workload, 30, 25)],
    }


def files(made: dict[str, Any], **settings: Any) -> dict[str, str]:
    roles = {"name": "roles", "image": SERVER_IMAGE, "command": ["bash"]}
    jobs = {"roles": roles, "migrate": job("migrate"), "seed": job("seed")}
    given = {"jobs": jobs, "secrets": SECRETS, "replicas": 2, "version": "1.2.3", "overlays": {"prod": {}}}
    found: dict[str, str] = manifests(made, given | settings)
    return found


def loaded(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def overlay(made: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    """The patches of an overlay, by the kind that they are for."""
    text = files(made, overlays={"prod": wanted})["kustomize/overlays/prod/kustomization.yaml"]
    (found,) = loaded(text)
    return {patch["target"]["kind"]: yaml.safe_load(patch["patch"]) for patch in found.get("patches", [])}


def values(made: dict[str, Any], **settings: Any) -> dict[str, Any]:
    (found,) = loaded(files(made, **settings)["chart/values.yaml"])
    return found


def test_nothing_is_changed_in_what_is_given() -> None:
    made = stages(scaler(), ingress())
    before = deepcopy(made)
    files(made)
    assert made == before


def test_one_job_makes_roles_migrates_and_seeds() -> None:
    (found,) = loaded(files(stages())["kustomize/base/prepare.yaml"])
    spec = found["spec"]["template"]["spec"]
    assert [container["name"] for container in spec["initContainers"] + spec["containers"]] == [
        "roles",
        "migrate",
        "seed",
    ]
    assert "activeDeadlineSeconds" not in found["spec"]
    sources = spec["volumes"][-1]["projected"]["sources"]
    assert [source["secret"]["name"] for source in sources] == list(SECRETS["readers"])


def test_a_job_that_does_something_else_has_another_name() -> None:
    names = set()
    for command in ("seed", "seed", "other"):
        jobs = {"roles": {}, "migrate": job("migrate"), "seed": job(command)}
        (found,) = exported(stages(), jobs, list(SECRETS["readers"]), 2)["prepare"]
        names.add(found["metadata"]["name"])
    assert len(names) == 2
    assert all(re.fullmatch(rf"{JOB}-[0-9a-f]{{10}}", name) for name in names)


@pytest.mark.parametrize(("front", "replicas"), [([], 2), ([scaler()], None)])
def test_the_number_of_pods_is_said_where_nothing_scales_them(front: list[Any], replicas: int | None) -> None:
    documents = loaded(files(stages(*front))["kustomize/base/api.yaml"])
    (deployment,) = (found for found in documents if found["kind"] == "Deployment")
    assert deployment["spec"].get("replicas") == replicas


def test_overlays_patch_what_is_there() -> None:
    made = stages(scaler(), ingress())
    assert overlay(made) == {}
    assert overlay(made, replicas=1)["Deployment"] == [{"op": "add", "path": "/spec/replicas", "value": 1}]
    assert overlay(made, replicas=1)["HorizontalPodAutoscaler"]["$patch"] == "delete"
    most = overlay(made, replicas=3, max_replicas=9)["HorizontalPodAutoscaler"]
    assert [operation["value"] for operation in most] == [3, 9]
    assert overlay(made, hostname="x.test")["Ingress"][0]["value"] == "x.test"
    (encrypted,) = overlay(made, tls=True)["Ingress"]
    assert encrypted["value"] == [{"hosts": ["titanic.test"], "secretName": "titanic-tls"}]
    assert overlay(made, quota={"pods": "9"})["ResourceQuota"][0]["value"] == {"pods": "9"}
    both = overlay(stages(ingress(tls=[{"hosts": ["titanic.test"], "secretName": "titanic-tls"}])), hostname="x.test")
    assert [operation["path"] for operation in both["Ingress"]] == ["/spec/rules/0/host", "/spec/tls/0/hosts/0"]


def test_overlays_know_other_ways_in_and_other_servers() -> None:
    route = thing("HTTPRoute", "titanic-api", spec={"hostnames": ["titanic.test"]})
    assert list(overlay(stages(route), hostname="x.test")) == ["HTTPRoute"]
    operated = thing("Cluster", "titanic-database", spec=OPERATED)
    (size,) = overlay(stages(database=deepcopy(operated)), storage="9Gi")["Cluster"]
    assert size == {"op": "replace", "path": "/spec/storage/size", "value": "9Gi"}
    assert overlay(stages(), hostname="x.test") == {}


OPERATED = {"imageName": SERVER_IMAGE, "resources": {}, "storage": {"size": "1Gi", "storageClass": "fast"}}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"replica": 1}, f"overlays.prod: there is no option replica. The options are {', '.join(OPTIONS)}."),
        ({"tls": 1}, "overlays.prod.tls: 1 is not of type bool"),
        ({"max_replicas": 4}, "overlays.prod.replicas: with max_replicas it is required."),
        ({"replicas": 2, "max_replicas": 4}, "overlays.prod.max_replicas: the base scales nothing"),
    ],
)
def test_an_overlay_that_cannot_be_is_refused_by_name(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(AnsibleFilterError, match=re.escape(said)):
        overlay(stages(), **wanted)


def test_secrets_are_names_and_files_that_git_ignores() -> None:
    (found,) = loaded(files(stages())["kustomize/secrets/kustomization.yaml"])
    assert found["secretGenerator"][0] == {"name": "titanic-api", "files": ["database_app_password"]}
    assert files(stages())["kustomize/secrets/.gitignore"].splitlines()[1:] == [
        "*",
        "!.gitignore",
        "!kustomization.yaml",
    ]
    login = {
        "readers": {"login": {"password": "app"}},
        "plain": {"login": {"username": "me"}},
        "types": {"login": "x/y"},
    }
    with_login = SECRETS | {**login, "readers": SECRETS["readers"] | login["readers"]}
    (found,) = loaded(files(stages(), secrets=with_login)["kustomize/secrets/kustomization.yaml"])
    wanted = {"name": "login", "files": ["password=app"], "literals": ["username=me"], "type": "x/y"}
    assert found["secretGenerator"][-1] == wanted


def test_nobody_makes_by_hand_what_an_operator_makes() -> None:
    found = files(stages() | {"secrets": [thing("ExternalSecret", "titanic-api")]}, secrets=SECRETS | {"objects": [1]})
    assert not [path for path in found if path.startswith("kustomize/secrets/")]
    assert "kind: ExternalSecret" in found["kustomize/base/secrets.yaml"]
    assert "kind: ExternalSecret" in found["chart/templates/secrets.yaml"]


def test_readers_have_what_there_is() -> None:
    wanted = {"a": ["one", "two"], "b": ["three"], "c": {"key": "one"}}
    assert held(wanted, ["one", "four"]) == {"a": {"one": "one"}, "c": {"key": "one"}}


def test_values_are_what_was_found() -> None:
    found = values(stages(scaler(), ingress(ingressClassName="traefik")))
    assert found["image"] == IMAGE
    assert found["databaseImage"] == SERVER_IMAGE
    assert found["environment"] == {"TITANIC_NOTE": "{{ braces }}"}
    assert found["replicas"] == {"min": 2, "max": 5}
    assert (found["hostname"], found["ingressClass"], found["tlsSecret"]) == ("titanic.test", "traefik", "")
    assert found["storage"] == {"size": "1Gi", "className": ""}
    assert found["secrets"]["owner"] == "titanic-owner"
    assert set(found["resources"]) == {"api", "database"}
    assert found["quota"] == {"pods": "30"}


def test_values_are_those_that_there_are() -> None:
    operated = values(stages(database=thing("Cluster", "titanic-database", spec=deepcopy(OPERATED))))
    assert operated["storage"] == {"size": "1Gi", "className": "fast"}
    jobs = {"roles": {}, "migrate": job("migrate"), "seed": job("seed")}
    external = values(stages(database=thing("NetworkPolicy", "titanic-database-external")), jobs=jobs)
    assert not {"databaseImage", "storage", "hostname", "ingressClass"} & set(external)
    assert external["replicas"] == {"min": 2}
    assert set(external["secrets"]) == {"api", "owner"}


@pytest.mark.parametrize("front", [[], [scaler(), ingress()]])
def test_the_schema_names_every_value_and_no_other(front: list[Any]) -> None:
    found = files(stages(*front))
    schema = json.loads(found["chart/values.schema.json"])
    (given,) = loaded(found["chart/values.yaml"])
    assert set(schema["properties"]) == {*given, "global"}
    for name, part in given.items():
        inner = schema["properties"][name].get("properties")
        if inner and name != "resources":
            assert set(inner) == set(part)
    assert schema["additionalProperties"] is False


def test_no_mark_is_left_and_braces_are_text() -> None:
    found = files(stages(scaler(), ingress()))
    templates = "".join(text for path, text in found.items() if path.startswith("chart/templates"))
    assert "MARK" not in templates
    assert "abc-" not in found["chart/templates/api.yaml"], "the release is an expression"
    marks = Marks()
    filled = marks.filled(as_yaml({"a": "{{ b }}", "c": marks.mark("{{ d }}"), "e": marks.mark("x\ny")}))
    assert filled == "a: '{{ \"{{\" }} b }}'\nc: {{ d }}\nx\ny\n"


def test_the_chart_has_no_namespace_and_its_own_version() -> None:
    found = files(stages())
    (facts,) = loaded(found["chart/Chart.yaml"])
    assert facts["version"] == "1.2.3"
    assert facts["appVersion"].startswith("abc-")
    assert "kind: Namespace" not in found["chart/templates/target.yaml"]
