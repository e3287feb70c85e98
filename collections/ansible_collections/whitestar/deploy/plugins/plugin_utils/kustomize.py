# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects as a Kustomize tree: a base, an overlay for each environment, and the Secrets' names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import API
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object
from ansible_collections.whitestar.deploy.plugins.plugin_utils.manifest_export import (
    HEADER,
    TLS_SECRET,
    ExportError,
    as_document,
    as_yaml,
)

KUSTOMIZATION = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
SCALER = "HorizontalPodAutoscaler"
# Where each kind of server says how big its volume is.
STORAGE = {
    "StatefulSet": "/spec/volumeClaimTemplates/0/spec/resources/requests/storage",
    "Cluster": "/spec/storage/size",
}
# What an overlay may say, with the type of each.
OPTIONS: dict[str, type] = {
    "namespace": str,
    "hostname": str,
    "tls": bool,
    "replicas": int,
    "max_replicas": int,
    "storage": str,
    "quota": dict,
}


def kustomize_tree(
    stages: Mapping[str, Sequence[Object]], secrets: Mapping[str, Any], overlays: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """The files of the tree by their paths.

    ``stages`` is what :func:`exports.exported` gave, ``secrets`` what titanic_secrets gave back, ``overlays`` what
    differs in each environment: any of ``OPTIONS``. Raises ExportError for an overlay that cannot be.
    """
    files = {f"base/{name}.yaml": as_document(*objects) for name, objects in stages.items()}
    files["base/kustomization.yaml"] = as_document(KUSTOMIZATION | {"resources": [f"{name}.yaml" for name in stages]})
    everything = [thing for objects in stages.values() for thing in objects]
    for name, wanted in overlays.items():
        files[f"overlays/{name}/kustomization.yaml"] = as_document(_overlay(name, wanted, everything))
    # Nobody makes by hand what an operator makes.
    return files if secrets["objects"] else files | _secrets(secrets)


def _secrets(secrets: Mapping[str, Any]) -> dict[str, str]:
    """Secrets of files that somebody puts there and nobody commits."""
    generators = []
    for name, wanted in secrets["readers"].items():
        files = [key if key == file else f"{key}={file}" for key, file in wanted.items()]
        literals = [f"{key}={value}" for key, value in secrets["plain"].get(name, {}).items()]
        kind = secrets["types"].get(name)
        more = ({"literals": literals} if literals else {}) | ({"type": kind} if kind else {})
        generators.append({"name": name, "files": files} | more)
    options = {"disableNameSuffixHash": True, "labels": {"app.kubernetes.io/name": "titanic"}}
    kept = KUSTOMIZATION | {"generatorOptions": options, "secretGenerator": generators}
    ignored = f"{HEADER}\n*\n!.gitignore\n!kustomization.yaml\n"
    return {"secrets/kustomization.yaml": as_document(kept), "secrets/.gitignore": ignored}


def _overlay(name: str, wanted: Mapping[str, Any], objects: Sequence[Object]) -> dict[str, Any]:
    """The kustomization of an environment."""
    where = f"titanic_manifests_overlays.{name}"
    for key, value in wanted.items():
        if key not in OPTIONS:
            raise ExportError(f"{where}: there is no option {key}. The options are {', '.join(OPTIONS)}.")
        if type(value) is not OPTIONS[key]:
            raise ExportError(f"{where}.{key}: {value!r} is not of type {OPTIONS[key].__name__}")
    try:
        patches = [
            {"target": {"kind": kind, "name": target}, "patch": text}
            for kind, target, text in _patches(wanted, {thing["kind"]: thing for thing in objects})
        ]
    except ExportError as error:
        raise ExportError(f"{where}.{error}") from error
    place = {"namespace": wanted["namespace"]} if "namespace" in wanted else {}
    return KUSTOMIZATION | place | {"resources": ["../../base"]} | ({"patches": patches} if patches else {})


def _patches(wanted: Mapping[str, Any], objects: Mapping[str, Object]) -> Iterator[tuple[str, str, str]]:
    """Kind and name of each object that differs, and the patch."""
    for kind, operations in (
        ("Deployment", _pods(wanted)),
        (SCALER, _scaler(wanted, objects)),
        ("Ingress", _ingress(wanted, objects)),
        ("HTTPRoute", _route(wanted, objects)),
        *((kind, _replace({path: wanted.get("storage")})) for kind, path in STORAGE.items()),
        ("ResourceQuota", _replace({"/spec/hard": wanted.get("quota")})),
    ):
        # Who wants no quota in the base wants none anywhere.
        if operations and kind in objects:
            yield kind, objects[kind]["metadata"]["name"], operations


def _replace(values: Mapping[str, Any], operation: str = "replace") -> str:
    """A JSON patch (RFC 6902) that sets the values that are given."""
    found = [{"op": operation, "path": path, "value": value} for path, value in values.items() if value is not None]
    return as_yaml(found) if found else ""


def _scaled(wanted: Mapping[str, Any]) -> bool | None:
    """Whether the number of pods may change; None where nothing is said about it."""
    if "replicas" not in wanted and "max_replicas" not in wanted:
        return None
    if "replicas" not in wanted:
        raise ExportError("replicas: with max_replicas it is required.")
    return bool(wanted.get("max_replicas", wanted["replicas"]) > wanted["replicas"])


def _pods(wanted: Mapping[str, Any]) -> str:
    return _replace({"/spec/replicas": wanted["replicas"]}, "add") if _scaled(wanted) is False else ""


def _scaler(wanted: Mapping[str, Any], objects: Mapping[str, Object]) -> str:
    scaled = _scaled(wanted)
    if scaled and SCALER not in objects:
        raise ExportError(
            "max_replicas: the base scales nothing. Set titanic_api_max_replicas above titanic_api_replicas."
        )
    if scaled is None or SCALER not in objects:
        return ""
    if scaled:
        return _replace({"/spec/minReplicas": wanted["replicas"], "/spec/maxReplicas": wanted["max_replicas"]})
    identity = {key: objects[SCALER][key] for key in ("apiVersion", "kind")}
    return as_yaml({"$patch": "delete", **identity, "metadata": {"name": API}})


def _ingress(wanted: Mapping[str, Any], objects: Mapping[str, Object]) -> str:
    if "Ingress" not in objects:
        return ""
    spec, host = objects["Ingress"]["spec"], wanted.get("hostname")
    encrypted = "tls" in spec
    values = {"/spec/rules/0/host": host, "/spec/tls/0/hosts/0": host if encrypted else None}
    made = {"hosts": [host or spec["rules"][0]["host"]], "secretName": TLS_SECRET}
    return _replace(values) + _replace({"/spec/tls": [made] if wanted.get("tls") and not encrypted else None}, "add")


def _route(wanted: Mapping[str, Any], objects: Mapping[str, Object]) -> str:
    return _replace({"/spec/hostnames/0": wanted.get("hostname")}) if "HTTPRoute" in objects else ""
