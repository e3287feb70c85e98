# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which values go together, on each provider, and what they ask of a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.common.validation import check_type_dict, check_type_list
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.whitestar.deploy.plugins.module_utils.common.address import wrong_host
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.volumes import amount
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import LOGINS, kinds_of
from ansible_collections.whitestar.deploy.plugins.plugin_utils.backup_validation import STORE_KEYS, wrong_backups
from ansible_collections.whitestar.deploy.plugins.plugin_utils.option_values import PORTS, suggestion
from cryptography import x509

# RFC 1123, as Kubernetes names a namespace.
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# As Docker Compose names a project.
PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
# Settings of the service that each target gives it.
GIVEN = re.compile("TITANIC_(BIND|RELEASE|DRAIN_FILE|METRICS_DIRECTORY|COUNTS_FILE|DATABASE_.+)")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?")
PASSWORDS = ("database_owner_password", "database_app_password")
# What a store may have for us.
STORED = (*PASSWORDS, "database_superuser_password", "write_tokens", *STORE_KEYS)
# How they are encrypted that are no pod of ours.
ENCRYPTED = {"external": "titanic_database_external says how it is reached", "cloudnative_pg": "its operator does it"}
# Where rotations have been shown to drop no request.
ROTATES = ("local", "compose")
NAME_BYTES = 63  # NAMEDATALEN - 1 in https://www.postgresql.org/docs/17/limits.html; what is longer is cut off
CHOOSE_CLASS = "Name one that there is, or make one the default."
ELSEWHERE = {"titanic_database_kind": "pod", "titanic_secrets_source": "generated"}


def wrong_together(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each value that another one rules out; values of the wrong type have been told of already."""
    if found := list(_signed(values)):
        return found
    platforms = check_type_list(values.get("titanic_image_platforms", []))
    if len(platforms) > 1 and not boolean(values.get("titanic_image_push", False)):
        several = "only a registry keeps an image for several platforms"
        return [f"titanic_image_platforms: {several}. Set titanic_image_push, or name one platform."]
    if found := wrong_backups(values):
        return found
    if values.get("titanic_provider") == "kubernetes":
        return [*_socket(values), *_on_kubernetes(values), *wrong_choices(values)]
    if found := [*_project(values), *_socket(values), *wrong_elsewhere(values), *_redirect(values)]:
        return found
    if boolean(values.get("titanic_database_pgadmin", False)) and values.get("titanic_provider") != "compose":
        return ["titanic_database_pgadmin: pgAdmin is a container beside those of a Compose target. Leave it out."]
    return []


def wrong_rotation(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each secret that is to be rotated and is not there, or is not ours."""
    if (provider := str(values.get("titanic_provider", ROTATES[0]))) not in ROTATES:
        where = f"secrets are rotated on titanic_provider {' and '.join(ROTATES)} only, not yet on {provider}"
        return [
            f"titanic_rotate: {where}. Change titanic_secrets_values or titanic_api_write_tokens, and run the site."
        ]
    if values.get("titanic_secrets_source") == "external_secrets":
        return [
            "titanic_rotate: secrets come from a store (titanic_secrets_source). Change them there, and run the site."
        ]
    kinds = kinds_of(values.get("titanic_rotate", []))
    kind, tokens = values.get("titanic_database_kind", "pod"), values.get("titanic_api_write_tokens")
    others = "others run the database (titanic_database_external). Have them change it, and set titanic_secrets_values."
    operated = "its operator keeps the one role of the service. Have a second one take over (titanic_database_user)."
    kept = "its operator keeps these passwords. Give new ones in titanic_secrets_values, and run the site."
    lacking = {
        "database": {"external": others, "cloudnative_pg": operated}.get(kind, _login_names(values)),
        "superuser": {"external": others, "cloudnative_pg": kept}.get(kind, ""),
        "tokens": "" if tokens else "there are none, so that anyone may write. Set titanic_api_write_tokens.",
        "tls": "it would drop connections yet. Give the new certificate in titanic_secrets_tls, and run the site.",
        "backup_key": "one key is kept, and older backups need it. Leave it out, until titanic_backup keeps several.",
    }
    if not kinds:
        return [f"titanic_rotate: no secret is named. Name some of {', '.join(lacking)}."]
    names = sorted(lacking)
    unknown = {name: f"there is no such secret.{suggestion(name, names)}" for name in kinds if name not in lacking}
    told = {**lacking, **unknown}
    return [f"titanic_rotate: {name}: {told[name]}" for name in kinds if told[name]]


def _login_names(values: Mapping[str, Any]) -> str:
    """Why the two logins cannot have names of their own, if so."""
    user = str(values.get("titanic_database_user", "titanic_app"))
    logins = [f"{user}{login}" for login in LOGINS]
    if len(logins[0].encode()) > NAME_BYTES:
        return f"its logins are named titanic_database_user with _a and _b, {NAME_BYTES} bytes at most. Choose another."
    if values.get("titanic_database_owner") in logins:
        return "titanic_database_owner is named as a login of the service is. Choose another."
    return ""


def _redirect(values: Mapping[str, Any]) -> list[str]:
    """Why nothing could be sent on to HTTPS, if so."""
    port = int(values.get("titanic_api_redirect_port") or 0)
    if port and values.get("titanic_api_tls", "none") == "none":
        return ["titanic_api_redirect_port: there is no HTTPS to send to. Leave it out, or set titanic_api_tls."]
    if port and port == int(values.get("titanic_api_port", 5000)):
        return [f"titanic_api_redirect_port: {port} is titanic_api_port. Choose another port, such as 80."]
    return []


def wrong_environment(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each setting of the service that the deployment itself has to give it."""
    environment = values.get("titanic_api_environment") or {}
    return [
        f"titanic_api_environment: {name} is the deployment's own. Leave it out."
        for name in sorted(map(str, environment if isinstance(environment, Mapping) else {}))
        if GIVEN.fullmatch(name)
    ]


def wrong_address(values: Mapping[str, Any]) -> list[str]:
    """Why nothing can listen at the reverse proxy's address, or ask it there, if so."""
    why = wrong_host(str(values.get("titanic_api_address", "127.0.0.1")), names=values["titanic_provider"] != "compose")
    return [f"titanic_api_address: {why}"] if why else []


def _project(values: Mapping[str, Any]) -> list[str]:
    """Why Docker Compose cannot have a project of this name, if so."""
    name = str(values.get("titanic_project", "titanic"))
    if values.get("titanic_provider") != "compose" or PROJECT.fullmatch(name):
        return []
    rule = "lower-case letters, digits, - and _, a letter or digit first"
    return [f"titanic_project: '{name}' cannot be a Compose project. Use {rule}."]


def _socket(values: Mapping[str, Any]) -> list[str]:
    """Why no engine can be asked over its socket, if so."""
    socket = str(_mapping(values, "titanic_engine").get("socket", ""))
    if "://" not in socket:
        return []
    remedy = "Name the machine as a host of the inventory, or unset DOCKER_HOST for the engine here."
    return [f"titanic_engine: {socket} is no path of a socket. Engines over the network are not supported. {remedy}"]


def _on_kubernetes(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each value that a cluster has no use for, or cannot use."""
    found = []
    name = str(values.get("titanic_project", "titanic"))
    if not DNS_LABEL.fullmatch(name):
        rule = "lower-case letters, digits and -, at most 63, a letter or digit first and last"
        found.append(f"titanic_project: '{name}' cannot be a namespace. Use {rule}.")
    if "/" not in str(values.get("titanic_image_repository", "titanic")):
        where = "a registry that the cluster pulls from, such as registry.example.org/titanic"
        found.append(f"titanic_image_repository: the image has to be pushed. Name a repository of {where}.")
    if values.get("titanic_api_tls") == "internal":
        found.append("titanic_api_tls: internal is Caddy's. Use acme with cert-manager, or give a certificate (given).")
    elif values.get("titanic_api_tls", "none") != "none" and values.get("titanic_api_front", "ingress") != "ingress":
        remedy = "Give the Gateway's own listener one and leave this at none, or use an Ingress."
        found.append(f"titanic_api_tls: only an Ingress gets a certificate (titanic_api_front). {remedy}")
    if values.get("titanic_api_front") == "node_port" and not values.get("titanic_target_client_networks"):
        found.append("titanic_target_client_networks: nobody may reach a node_port. Name the networks that may.")
    if boolean(values.get("titanic_database_pgadmin", False)):
        found.append("titanic_database_pgadmin: pgAdmin is a container beside those of a Compose target. Leave it out.")
    return found


def wrong_elsewhere(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each choice that only a cluster has, on a target that is none."""
    return [
        f"{name}: {values[name]} is for Kubernetes. Leave it out."
        for name, usual in ELSEWHERE.items()
        if values.get(name, usual) != usual
    ]


def wrong_choices(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each of these choices that another one rules out or leaves open."""
    return [*_database(values), *_secrets(values)]


def asked_of_a_cluster(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a deployment with these settings asks of a cluster, for the checks before the first change.

    As kubernetes_lock takes them: ``required_resources`` (what must be there), ``volume`` (of the database), and
    ``overlays`` (what is laid over objects). ``adopt`` is whether a namespace that somebody else made may be used.
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
        remedy = "Name one that there is, install a controller, or set titanic_api_front to gateway or node_port."
        yield _need("networking.k8s.io/v1 IngressClass", "titanic_api_ingress_class", remedy) | {
            "name": values.get("titanic_api_ingress_class", ""),
            "default": "ingressclass.kubernetes.io/is-default-class",
        }
    if front == "gateway":
        remedy = "Install the Gateway API and a controller of it, or use ingress."
        yield _need("gateway.networking.k8s.io/v1 HTTPRoute", "titanic_api_front", remedy)
    if kind == "cloudnative_pg":
        remedy = "Install the CloudNativePG operator, or set it to pod or external."
        yield _need("postgresql.cnpg.io/v1 Cluster", "titanic_database_kind", remedy)
    if values.get("titanic_secrets_source") == "external_secrets":
        remedy = "Install the External Secrets Operator, or set it to generated."
        for stored in ("SecretStore", "ExternalSecret"):
            yield _need(f"external-secrets.io/v1 {stored}", "titanic_secrets_source", remedy)
    if values.get("titanic_api_tls") == "acme":
        remedy = "Install cert-manager and make that issuer, or give a certificate (titanic_api_tls given)."
        issuer = {"name": values.get("titanic_api_issuer", "letsencrypt")}
        yield _need("cert-manager.io/v1 ClusterIssuer", "titanic_api_issuer", remedy) | issuer
    if int(values.get("titanic_api_max_replicas", 5)) > int(values.get("titanic_api_replicas", 2)):
        remedy = "Install metrics-server, or set it to no more than titanic_api_replicas."
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
        yield f"titanic_database_external: titanic_database_kind is {kind}. Set that to external, or leave this out."
    if kind != "pod" and boolean(values.get("titanic_database_tls", False)):
        yield f"titanic_database_tls: it is for titanic_database_kind pod; {ENCRYPTED[kind]}. Leave it out."
    try:
        amount(values.get("titanic_database_storage", "1Gi"))
    except ValueError as error:
        yield f"titanic_database_storage: {error}"
    if int(values.get("titanic_database_instances", 1)) < 1:
        yield "titanic_database_instances: there has to be one at least. Set 1 or more."


def _external(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a database that others run."""
    given, name = _mapping(values, "titanic_database_external"), "titanic_database_external"
    host, port = given.get("host"), given.get("port")
    if not host:
        yield f"{name}: host is missing. Give the name of the server, which titanic_database_kind external needs."
    elif not HOST.fullmatch(str(host)):
        yield f"{name}: host '{host}' is not a name or an address. Give nothing else with it."
    if port is not None and int(port) not in PORTS:
        yield f"{name}: port {port} is not a port. Choose one from {PORTS.start} to {PORTS.stop - 1}."
    if given.get("authority"):
        if not _is_certificate(str(given["authority"])):
            yield f"{name}: authority is no certificate. Give it as PEM (-----BEGIN CERTIFICATE-----)."
    elif given.get("sslmode") == "verify-ca":
        yield f"{name}: sslmode verify-ca needs authority. Give it, or use verify-full."
    if _mapping(values, "titanic_database_settings"):
        yield "titanic_database_settings: others run the database (titanic_database_kind external). Leave it out."
    if values.get("titanic_secrets_source") != "external_secrets":
        kept = _mapping(values, "titanic_secrets_values")
        missing = [password for password in PASSWORDS if not kept.get(password)]
        yield from (
            f"titanic_secrets_values: {name} is missing. Give what the external database has." for name in missing
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
                what = "Set titanic_secrets_source to external_secrets, or leave this out."
                yield f"titanic_secrets_{name}: secrets come from no store. {what}"
        return
    if len(store) != 1 or not all(isinstance(part, Mapping) for part in store.values()):
        yield (
            "titanic_secrets_store: there has to be one provider. "
            "Name it with its settings, such as {aws: {service: SecretsManager, …}}."
        )
    yield from _remote(remote)
    for name in ("titanic_secrets_values", "titanic_api_write_tokens"):
        if values.get(name):
            yield f"{name}: secrets come from titanic_secrets_store. Put them there, and leave this out."
    if boolean(values.get("titanic_database_tls", False)):
        yield "titanic_database_tls: its key would have to come from titanic_secrets_store. Leave it out."


def _remote(remote: Mapping[str, Any]) -> Iterator[str]:
    for name, place in remote.items():
        if name not in STORED:
            yield f"titanic_secrets_remote: there is no secret {name}. The secrets are {', '.join(STORED)}."
        elif not (isinstance(place, str) and place) and not (isinstance(place, Mapping) and place.get("key")):
            yield f"titanic_secrets_remote: {name} is neither a remote key nor a mapping with key. Give one of these."


def _mapping(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = check_type_dict(values.get(name) or {})
    return found


def _signed(values: Mapping[str, Any]) -> Iterator[str]:
    """Why no signature could be looked at, if so."""
    wanted = _mapping(values, "titanic_image_verify")
    if not wanted:
        return
    if bool(wanted.get("key")) == bool(wanted.get("identity")):
        yield "titanic_image_verify: it does not say who must have signed. Set either key, or identity and issuer."
    elif bool(wanted.get("identity")) != bool(wanted.get("issuer")):
        yield "titanic_image_verify: an identity counts with who has vouched for it. Set both identity and issuer."
    if values.get("titanic_provider") == "compose" and not boolean(values.get("titanic_image_push", False)):
        yield "titanic_image_verify: only a registry keeps signatures. Set titanic_image_push."
