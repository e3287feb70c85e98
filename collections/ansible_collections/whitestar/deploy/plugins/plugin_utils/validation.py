# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes together of a Kubernetes target's choices: which database, and where secrets come from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.common.validation import check_type_dict, check_type_list
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.volumes import amount
from cryptography import x509

HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?")
PORTS = range(1, 65536)
PASSWORDS = ("database_owner_password", "database_app_password")
# What a store may have for us.
STORED = (*PASSWORDS, "database_superuser_password", "write_tokens", "backup_s3_key", "backup_s3_key_secret")
# How they are encrypted that are no pod of ours.
ENCRYPTED = {"external": "titanic_database_external says how it is reached", "cloudnative_pg": "its operator does it"}
CHOOSE_CLASS = "name one that there is, or make one the default"
ELSEWHERE = {"titanic_database_kind": "pod", "titanic_secrets_source": "generated"}


def wrong_elsewhere(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each choice that only a cluster has, on a target that is none."""
    return [
        f"{name}: {values[name]} is for Kubernetes: leave it out"
        for name, usual in ELSEWHERE.items()
        if values.get(name, usual) != usual
    ]


def wrong_choices(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each of these choices that another one rules out or leaves open."""
    return [*_database(values), *_secrets(values)]


def wrong_backups(values: Mapping[str, Any]) -> list[str]:
    """Why there can be no backups as they are asked for, if so."""
    places = [dict(each) for each in check_type_list(values.get("titanic_backup_repositories") or [])]
    provider = values.get("titanic_provider")
    if not boolean(values.get("titanic_backup_enabled", False)):
        return []
    kind = str(values.get("titanic_database_kind", "pod"))
    if provider == "kubernetes" and kind in _NO_BACKUPS:
        return [f"titanic_backup_enabled: {_NO_BACKUPS[kind]}"]
    most = 2 if provider == "compose" else 1
    if not 0 < len(places) <= most:
        what = "one repository" if most == 1 else "one repository or two"
        bucket = "name a bucket, such as [{type: s3, endpoint: s3.example.org, bucket: titanic}]"
        remedy = bucket if provider == "kubernetes" else "name one directory, such as [{path: /srv/backups}]"
        return [
            f"titanic_backup_repositories: {provider} keeps backups in {what}, and {len(places)} are named: {remedy}"
        ]
    found = [problem for place in places for problem in _wrong_place(place, str(provider))]
    stored = values.get("titanic_secrets_source") == "external_secrets"
    if not found and not stored and any(place.get("type") == "s3" for place in places):
        given = check_type_dict(values.get("titanic_secrets_values") or {})
        missing = [name for name in ("backup_s3_key", "backup_s3_key_secret") if not given.get(name)]
        what = f"an S3 repository takes {' and '.join(missing)}"
        found += (
            [f"titanic_secrets_values: {what}: give what the service calls access key and secret key"]
            if missing
            else []
        )
    return found


_NO_BACKUPS = {
    "pod": (
        "backups are for titanic_provider local and compose and for titanic_database_kind cloudnative_pg so far: leave "
        "it out, and dump the data as docs/runbook.md has it"
    ),
    "external": (
        "whoever runs an external database backs it up: leave it out, and have its owner archive WAL, keep base "
        "backups, and prove that they restore"
    ),
}


def _wrong_place(place: Mapping[str, Any], provider: str) -> Iterator[str]:
    name, kind = "titanic_backup_repositories", place.get("type", "directory")
    if kind == "s3" and provider == "local":
        yield f"{name}: local keeps backups in a directory: name the mount of one, or deploy to compose"
    elif kind == "s3":
        missing = [key for key in ("endpoint", "bucket") if not place.get(key)]
        if missing:
            yield f"{name}: an S3 repository has no {' and no '.join(missing)}: name it"
        elif "/" in str(place["endpoint"]):
            yield f"{name}: {place['endpoint']} is no host: write it without scheme and path (s3.example.org:9000)"
        if place.get("path"):
            yield f"{name}: an S3 repository has no path: name the directory in the bucket as prefix"
        if (authority := place.get("authority")) and "BEGIN CERTIFICATE" not in str(authority):
            yield f"{name}: authority is no certificate in PEM: give what is between and with its BEGIN and END lines"
    elif provider == "kubernetes":
        yield f"{name}: CloudNativePG keeps backups in a bucket: write type: s3, endpoint and bucket"
    elif not str(place.get("path", "")).startswith("/"):
        yield f"{name}: {place.get('path')} is not an absolute path: write it from the root on"


def asked_of_a_cluster(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a deployment with these settings asks of a cluster, for the checks before the first change.

    ``required_resources`` (what must be there), ``volume`` (of the database), ``overlays`` (what is laid over objects)
    as kubernetes_lock takes them, and ``adopt`` (whether a namespace that somebody else made may be used).
    """
    volume = {
        "size": values.get("titanic_database_storage", "1Gi"),
        "storage_class": values.get("titanic_database_storage_class", ""),
    }
    return {
        "required_resources": list(_required_resources(values)),
        "volume": {} if values.get("titanic_database_kind") == "external" else volume,
        "overlays": list(_overlays(values)),
        "adopt": boolean(values.get("titanic_target_namespace_adopt", False)),
    }


def _required_resources(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    kind, front = values.get("titanic_database_kind", "pod"), values.get("titanic_api_front", "ingress")
    if kind != "external":
        yield _need("storage.k8s.io/v1 StorageClass", "titanic_database_storage_class", CHOOSE_CLASS) | {
            "name": values.get("titanic_database_storage_class", ""),
            "default": "storageclass.kubernetes.io/is-default-class",
        }
    if front == "ingress":
        remedy = "name one that there is, install a controller, or set titanic_api_front to another way in"
        yield _need("networking.k8s.io/v1 IngressClass", "titanic_api_ingress_class", remedy) | {
            "name": values.get("titanic_api_ingress_class", ""),
            "default": "ingressclass.kubernetes.io/is-default-class",
        }
    if front == "gateway":
        remedy = "install the Gateway API and a controller of it, or use ingress"
        yield _need("gateway.networking.k8s.io/v1 HTTPRoute", "titanic_api_front", remedy)
    if kind == "cloudnative_pg":
        remedy = "install the CloudNativePG operator, or set it to pod or external"
        yield _need("postgresql.cnpg.io/v1 Cluster", "titanic_database_kind", remedy)
    if values.get("titanic_secrets_source") == "external_secrets":
        remedy = "install the External Secrets Operator, or set it to generated"
        for stored in ("SecretStore", "ExternalSecret"):
            yield _need(f"external-secrets.io/v1 {stored}", "titanic_secrets_source", remedy)
    if values.get("titanic_api_tls") == "acme":
        remedy = "install cert-manager and make that issuer, or give a certificate (titanic_api_tls given)"
        issuer = {"name": values.get("titanic_api_issuer", "letsencrypt")}
        yield _need("cert-manager.io/v1 ClusterIssuer", "titanic_api_issuer", remedy) | issuer
    if int(values.get("titanic_api_max_replicas", 5)) > int(values.get("titanic_api_replicas", 2)):
        remedy = "install metrics-server, or set it to no more than titanic_api_replicas"
        yield _need("metrics.k8s.io/v1beta1 PodMetrics", "titanic_api_max_replicas", remedy)


def _need(what: str, variable: str, remedy: str) -> dict[str, Any]:
    version, kind = what.split()
    return {"api_version": version, "kind": kind, "variable": variable, "remedy": remedy}


def _overlays(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for stage in ("target", "database", "api"):
        variable = f"titanic_{stage}_kubernetes_overrides"
        if over := _mapping(values, variable):
            yield {"variable": variable, "stage": stage, "over": over}
    port = int(values.get("titanic_api_node_port", 0))
    if port and values.get("titanic_api_front") == "node_port":
        ports = [{"name": "http", "nodePort": port}]
        over = {"Service": {"spec": {"type": "NodePort", "ports": ports}}}
        yield {"variable": "titanic_api_node_port", "stage": "api", "over": over}


def _database(values: Mapping[str, Any]) -> Iterator[str]:
    kind = values.get("titanic_database_kind", "pod")
    if kind == "external":
        yield from _external(values)
    elif _mapping(values, "titanic_database_external"):
        yield f"titanic_database_external: titanic_database_kind is {kind}: set that to external, or leave this out"
    if kind != "pod" and boolean(values.get("titanic_database_tls", False)):
        yield f"titanic_database_tls: it is for titanic_database_kind pod; {ENCRYPTED[kind]}: leave it out"
    try:
        amount(values.get("titanic_database_storage", "1Gi"))
    except ValueError as error:
        yield f"titanic_database_storage: {error}"
    if int(values.get("titanic_database_instances", 1)) < 1:
        yield "titanic_database_instances: there has to be one at least"


def _external(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a database that others run."""
    given, name = _mapping(values, "titanic_database_external"), "titanic_database_external"
    host, port = given.get("host"), given.get("port")
    if not host:
        yield f"{name}: host is missing: titanic_database_kind external needs the name of the server"
    elif not HOST.fullmatch(str(host)):
        yield f"{name}: host '{host}' is not a name or an address: give nothing else with it"
    if port is not None and int(port) not in PORTS:
        yield f"{name}: port {port} is not a port; choose one from {PORTS.start} to {PORTS.stop - 1}"
    if given.get("authority"):
        if not _is_certificate(str(given["authority"])):
            yield f"{name}: authority is not a certificate as PEM (-----BEGIN CERTIFICATE-----)"
    elif given.get("sslmode") == "verify-ca":
        yield f"{name}: sslmode verify-ca needs authority: give it, or use verify-full"
    if _mapping(values, "titanic_database_settings"):
        yield "titanic_database_settings: others run the database (titanic_database_kind external): leave it out"
    if values.get("titanic_secrets_source") != "external_secrets":
        kept = _mapping(values, "titanic_secrets_values")
        missing = [password for password in PASSWORDS if not kept.get(password)]
        yield from (
            f"titanic_secrets_values: {name} is missing: give what the external database has" for name in missing
        )


def _is_certificate(text: str) -> bool:
    try:
        return bool(x509.load_pem_x509_certificates(text.encode()))
    except ValueError:
        return False


def _secrets(values: Mapping[str, Any]) -> Iterator[str]:
    store, remote = (_mapping(values, f"titanic_secrets_{name}") for name in ("store", "remote"))
    if values.get("titanic_secrets_source") != "external_secrets":
        for name, given in (("store", store), ("remote", remote)):
            if given:
                what = "set titanic_secrets_source to external_secrets, or leave this out"
                yield f"titanic_secrets_{name}: secrets come from no store: {what}"
        return
    if len(store) != 1 or not all(isinstance(part, Mapping) for part in store.values()):
        yield "titanic_secrets_store: name one provider with its settings, such as {aws: {service: SecretsManager, …}}"
    yield from _remote(remote)
    for name in ("titanic_secrets_values", "titanic_api_write_tokens"):
        if values.get(name):
            yield f"{name}: secrets come from titanic_secrets_store: put them there, and leave this out"
    if boolean(values.get("titanic_database_tls", False)):
        yield "titanic_database_tls: its key would have to come from titanic_secrets_store: leave it out"


def _remote(remote: Mapping[str, Any]) -> Iterator[str]:
    for name, place in remote.items():
        if name not in STORED:
            yield f"titanic_secrets_remote: there is no secret {name} (secrets: {', '.join(STORED)})"
        elif not (isinstance(place, str) and place) and not (isinstance(place, Mapping) and place.get("key")):
            yield f"titanic_secrets_remote: {name} is neither a remote key nor a mapping with key"


def _mapping(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = check_type_dict(values.get(name) or {})
    return found
