# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse bad input on the controller, before any target is asked anything."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Container, Iterable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.validation import check_type_list
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.whitestar.deploy.plugins.module_utils.common.address import wrong_host
from ansible_collections.whitestar.deploy.plugins.plugin_utils import in_process  # noqa: F401 (loads once what workers use)
from ansible_collections.whitestar.deploy.plugins.plugin_utils.names import REFUSED_FROM, RENAMED, following
from ansible_collections.whitestar.deploy.plugins.plugin_utils.required_collections import missing
from ansible_collections.whitestar.deploy.plugins.plugin_utils.validation import (
    asked_of_a_cluster,
    wrong_backups,
    wrong_choices,
    wrong_elsewhere,
)
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ROLES = Path(__file__).resolve().parents[2] / "roles"
PREFIX = "titanic_"
# What roles have for themselves and what playbooks hand them.
INTERNAL = "__titanic_"
# RFC 1123, as Kubernetes names a namespace.
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# As Docker Compose names a project.
PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
# The stages that have a tag of their own.
STAGES = ("target", "secrets", "database", "schema", "seed", "api")
# The tags of titanic_image beside api, which needs it.
MAKES_THE_RELEASE = ("image", "schema")
# What goes the other way than a deployment, and what may go along.
ALONE = {
    "rollback": ("verify", "status", "drift"),
    "backup": ("status",),
    "restore": ("verify", "status"),
    "drill": ("status",),
    "stop": ("status",),
    "start": ("verify", "status", "drift"),
    "teardown": (),
}
# What ansible-core itself gives a meaning to, and what Molecule skips in every scenario.
SPECIAL_TAGS = {"all", "always", "never", "tagged", "untagged"}
SPECIAL_TAGS |= {"notest", "molecule-notest", "molecule-idempotence-notest"}
PORTS = range(1, 65536)
# The least and the most that a number may be, where that is not anything from 0 on. Of the workers it is the service's
# own rule (TITANIC_WORKERS).
LIMITS = {
    "titanic_api_workers": (1, 64),
    "titanic_api_replicas": (1, inf),
    "titanic_api_ready_seconds": (1, inf),
    "titanic_api_probation_error_share": (0, 1),
    "titanic_backup_full_days": (0, inf),
    "titanic_backup_keep_full": (1, inf),
    "titanic_backup_rpo_seconds": (2, inf),
    "titanic_backup_wal_mebibytes": (64, inf),
    "titanic_database_instances": (1, inf),
    "titanic_preflight_lease_seconds": (1, inf),
    "titanic_target_deployer_days": (1, inf),
}
# Whose keys are the secrets that there are: those that are generated, and those that a provider adds.
SECRETS = "titanic_secrets_values"
KEPT = (
    "database_owner_password",
    "database_app_password",
    "database_superuser_password",
    "pgadmin_password",
    "backup_key",
    "backup_s3_key",
    "backup_s3_key_secret",
)
# Settings of the service that each target gives it.
GIVEN = re.compile("TITANIC_(BIND|RELEASE|DRAIN_FILE|METRICS_DIRECTORY|COUNTS_FILE|DATABASE_.+)")
# How variables end that name something to read.
FILES = ("_csv", "_context", "image_dockerfile", "image_requirements")
# Those that nobody reads on this provider, and those that are read on the target.
UNREAD = {"local": {"titanic_image_dockerfile"}, "compose": {"titanic_image_requirements"}}
UNREAD["kubernetes"] = UNREAD["compose"]
ON_TARGET = {
    "local": {"titanic_seed_csv", "titanic_image_context", "titanic_image_requirements"},
    "compose": {"titanic_seed_csv"},
}


def role_options() -> dict[str, dict[str, Any]]:
    """Every public variable of the collection with its option as ``meta/argument_specs.yml`` has it."""
    options: dict[str, dict[str, Any]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            options.update(entry.get("options", {}))
    return options


def internal(inventory: Mapping[str, Any]) -> list[str]:
    """One sentence for each variable of an inventory that is a role's own, and would be overruled without a word.

    What a task of an earlier play has registered is none.
    """
    return [
        f"{name}: it is the collection's own: leave it out"
        for name, value in sorted(inventory.items())
        if name.startswith(INTERNAL) and not (isinstance(value, Mapping) and {"changed", "skipped"} & set(value))
    ]


def renamed(variables: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """One sentence for each old name that is used, and one for each that says something else than the new name does.

    ``variables`` are all with their values, ``values`` those of the settings.
    """
    used = {old: new for old, new in RENAMED.items() if old in variables}
    clashing = {old: new for old, new in used.items() if variables[old] != values.get(new)}
    return (
        [f"{old}: this setting is called {new} now: rename it" for old, new in used.items() if old not in clashing],
        [f"{old}: {new}, its new name, has another value: leave {old} out" for old, new in clashing.items()],
    )


def unknown_tags(asked: Iterable[str], known: Iterable[str]) -> list[str]:
    """One sentence for each tag that nothing has."""
    names = sorted(known)
    return [
        f"--tags {tag}: there is no such tag{_suggestion(tag, names)} (tags: {', '.join(names)})"
        for tag in asked
        if tag not in SPECIAL_TAGS and tag not in names
    ]


def clashing_tags(run: Collection[str], skip: Collection[str], *, deploys: bool) -> list[str]:
    """One sentence for each choice of tags with which a run could not do what it is asked for.

    ``deploys`` is whether the run may start a release.
    """
    problems = []
    for tag, beside in ALONE.items():
        others = sorted(set(run) - {tag, *beside, "always"})
        if tag in run and others:
            problems.append(
                f"--tags {','.join(run)}: {tag} does not go together with {', '.join(others)}; run one after the other"
            )
    made_by = sorted(set(skip) & set(MAKES_THE_RELEASE))
    serves = deploys and "api" not in skip and {"all", "api"} & set(run or ["all"])
    if made_by and serves:
        what = (
            f"--skip-tags {','.join(made_by)}: the release is made under this tag too, and api would have none to serve"
        )
        stages = ",".join(stage for stage in STAGES if stage not in skip)
        problems.append(f"{what}; say what is to run instead, as with --tags {stages}")
    return problems


def unknown_variables(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """One sentence for each ``titanic_*`` variable that no role has; a role gives back ``titanic_ROLE_result``."""
    options = sorted(known)
    results = {f"{role.name}_result" for role in ROLES.iterdir()}
    return [
        f"{name}: {following(name) or 'there is no such variable' + _suggestion(name, options)}"
        for name in sorted(names)
        if name.startswith(PREFIX) and name not in options and name not in results and name not in RENAMED
    ]


def wrong_values(
    values: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]], elsewhere: Container[str] = ()
) -> list[str]:
    """One sentence for each value of the wrong type, outside its choices or its range.

    ``elsewhere`` names paths on another machine than this one, which the stage that reads them will look for.
    """
    found = unknown_keys(values, options)
    told = {problem.partition(":")[0] for problem in found}
    for name, value in values.items():
        if name in told:
            continue
        option = {key: part for key, part in options[name].items() if key != "required"}
        secret = bool(option.pop("no_log", False))
        problems = ArgumentSpecValidator({name: option}).validate({name: value}).error_messages
        if problems:
            kind = option.get("type", "str")
            found.append(f"{name}: it must be of type {kind}" if secret else f"{name}: {'; '.join(problems)}")
        elif (
            name.endswith("_port")
            and option.get("type") == "int"
            and int(value) not in PORTS
            and value != option.get("default")
        ):
            found.append(f"{name}: {value} is not a port; choose one from {PORTS.start} to {PORTS.stop - 1}")
        elif name.endswith(FILES) and name not in elsewhere and (why := wrong_file(name, value)):
            found.append(f"{name}: {why}")
        elif option.get("type") == "path" and name.endswith("_directory") and not str(value).startswith(("/", "~")):
            found.append(f"{name}: {value} is not an absolute path")
        elif option.get("type") in {"int", "float"} and (why := out_of_range(float(value), LIMITS.get(name))):
            found.append(f"{name}: {value} {why}")
    return found


def out_of_range(value: float, limits: tuple[float, float] | None) -> str:
    """Why a number is not what an option may be; empty if it is. Without limits it may be anything from 0 on."""
    least, most = limits or (0, inf)
    if least <= value <= most:
        return ""
    return f"is less than {least}" if most == inf else f"is not from {least} to {most}"


def wrong_file(name: str, value: object) -> str:
    """Why a path on this machine is not what this option needs; empty if it is."""
    path = Path(str(value)).expanduser()
    if not path.exists():
        return f"there is no {value} on this machine"
    if name.endswith("_context"):
        return "" if path.is_dir() else f"{path} is no directory; name the one that holds the project"
    return f"{path} is a directory; name the file" if path.is_dir() else ""


def unknown_keys(values: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence for each key that a dictionary's option does not have; of a secret only the key is told."""
    closed = {name: set(options[name].get("options", ())) for name in values}
    if SECRETS in values:
        generated = values.get("titanic_secrets_generated", options["titanic_secrets_generated"].get("default"))
        closed[SECRETS] = {*KEPT, *map(str, generated if isinstance(generated, list) else [])}
    return [
        f"{name}: there is no key {key}{_suggestion(str(key), sorted(keys))} (keys: {', '.join(sorted(keys))})"
        for name, keys in closed.items()
        if keys and isinstance(values[name], Mapping)
        for key in values[name]
        if key not in keys
    ]


def wrong_together(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each value that another one rules out; values of the wrong type have been told of already."""
    platforms = check_type_list(values.get("titanic_image_platforms", []))
    if len(platforms) > 1 and not boolean(values.get("titanic_image_push", False)):
        several = "only a registry keeps an image for several platforms"
        return [f"titanic_image_platforms: {several}: set titanic_image_push, or name one platform"]
    if found := wrong_backups(values):
        return found
    if values.get("titanic_provider") == "kubernetes":
        return [*wrong_on_kubernetes(values), *wrong_choices(values)]
    if found := [*wrong_project(values), *wrong_elsewhere(values), *wrong_redirect(values)]:
        return found
    if boolean(values.get("titanic_database_pgadmin", False)) and values.get("titanic_provider") != "compose":
        return ["titanic_database_pgadmin: pgAdmin is a container beside those of a Compose target: leave it out"]
    return []


def wrong_redirect(values: Mapping[str, Any]) -> list[str]:
    """Why nothing could be sent on to HTTPS, if so."""
    port = int(values.get("titanic_api_redirect_port") or 0)
    if port and values.get("titanic_api_tls", "none") == "none":
        return ["titanic_api_redirect_port: there is no HTTPS to send to: leave it out, or set titanic_api_tls"]
    if port and port == int(values.get("titanic_api_port", 5000)):
        return [f"titanic_api_redirect_port: {port} is titanic_api_port: choose another port, such as 80"]
    return []


def wrong_environment(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each setting of the service that the deployment itself has to give it."""
    environment = values.get("titanic_api_environment") or {}
    return [
        f"titanic_api_environment: {name} is the deployment's own: leave it out"
        for name in sorted(map(str, environment if isinstance(environment, Mapping) else {}))
        if GIVEN.fullmatch(name)
    ]


def wrong_address(values: Mapping[str, Any]) -> list[str]:
    """Why nothing can listen at the reverse proxy's address, or ask it there, if so."""
    why = wrong_host(str(values.get("titanic_api_address", "127.0.0.1")), names=values["titanic_provider"] != "compose")
    return [f"titanic_api_address: {why}"] if why else []


def wrong_project(values: Mapping[str, Any]) -> list[str]:
    """Why Docker Compose cannot have a project of this name, if so."""
    name = str(values.get("titanic_project", "titanic"))
    if values.get("titanic_provider") != "compose" or PROJECT.fullmatch(name):
        return []
    rule = "lower-case letters, digits, - and _, a letter or digit first"
    return [f"titanic_project: '{name}' cannot be a Compose project: use {rule}"]


def wrong_on_kubernetes(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each value that a cluster has no use for, or cannot use."""
    found = []
    name = str(values.get("titanic_project", "titanic"))
    if not DNS_LABEL.fullmatch(name):
        rule = "lower-case letters, digits and -, at most 63, a letter or digit first and last"
        found.append(f"titanic_project: '{name}' cannot be a namespace: use {rule}")
    if "/" not in str(values.get("titanic_image_repository", "titanic")):
        where = "a registry that the cluster pulls from, such as registry.example.org/titanic"
        found.append(f"titanic_image_repository: the image has to be pushed: name a repository of {where}")
    if values.get("titanic_api_tls") == "internal":
        found.append("titanic_api_tls: internal is Caddy's: use acme with cert-manager, or give a certificate (given)")
    elif values.get("titanic_api_tls", "none") != "none" and values.get("titanic_api_front", "ingress") != "ingress":
        remedy = "give the Gateway's own listener one and leave this at none, or use an Ingress"
        found.append(f"titanic_api_tls: only an Ingress gets a certificate (titanic_api_front): {remedy}")
    if values.get("titanic_api_front") == "node_port" and not values.get("titanic_target_client_networks"):
        found.append("titanic_target_client_networks: nobody may ask a node_port: name the networks that may")
    if boolean(values.get("titanic_database_pgadmin", False)):
        found.append("titanic_database_pgadmin: pgAdmin is a container beside those of a Compose target: leave it out")
    return found


def wrong_certificates(values: Mapping[str, Any]) -> list[str]:
    """Why the reverse proxy or the database could not use the certificate and key that it is given, if so."""
    found = []
    if values.get("titanic_api_tls") == "given":
        name = str(values.get("titanic_api_hostname") or "localhost")
        found += wrong_certificate(values, "titanic_secrets_tls", name, told="titanic_api_hostname")
    if boolean(values.get("titanic_database_tls", False)):
        if values.get("titanic_provider") == "local":
            return [*found, "titanic_database_tls: the local database is reached by a socket: leave it out"]
        name = "titanic-database" if values.get("titanic_provider") == "kubernetes" else "database"
        found += wrong_certificate(values, "titanic_secrets_database_tls", name)
    return found


def wrong_certificate(values: Mapping[str, Any], variable: str, name: str, told: str = "") -> list[str]:
    """Why a certificate and key cannot be used under this name, if so; nothing of the key is said.

    ``told`` is the variable that the name comes from, where one does.
    """
    given = values.get(variable) or {}
    try:
        certificate = x509.load_pem_x509_certificates(str(given.get("certificate")).encode())[0]
    except ValueError:
        return [f"{variable}: certificate is not a certificate as PEM (-----BEGIN CERTIFICATE-----)"]
    try:
        key = load_pem_private_key(str(given.get("key")).encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return [f"{variable}: key is not a private key as PEM without a passphrase"]
    found = []
    if key.public_key() != certificate.public_key():
        found.append(f"{variable}: key is not the one of certificate: give the one it was made with")
    if certificate.not_valid_after_utc < datetime.now(UTC):
        ended = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        found.append(f"{variable}: certificate was valid until {ended}: give a newer one")
    names = certificate_names(certificate)
    if not any(matches(name, pattern) for pattern in names):
        its = ", ".join(names) or "no name"
        remedy = "give another name or certificate" if told else "give one that is"
        found.append(f"{told or variable}: the certificate is for {its}, not for {name}: {remedy}")
    return found


def certificate_names(certificate: x509.Certificate) -> list[str]:
    """The names and addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def matches(name: str, pattern: str) -> bool:
    """Whether a certificate's name, which may begin with ``*.`` (RFC 9525, 6.3), is for this name."""
    first, _, rest = pattern.partition(".")
    return name.lower() == pattern.lower() or (first == "*" and name.lower().partition(".")[2] == rest.lower())


def _suggestion(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


class ActionModule(ActionBase):
    """Compare tags and variables of this run with what the collection knows, and say what it asks of a target."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"tags", "deploys"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """``{"changed": False}``, or ``failed`` with one line for each problem."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        options = role_options()
        run_tags, skip_tags = (list(variables.get(f"ansible_{kind}_tags", [])) for kind in ("run", "skip"))
        problems = unknown_tags([*run_tags, *skip_tags], self._task.args.get("tags", []))
        deploys = boolean(self._task.args.get("deploys", True))
        problems += clashing_tags(run_tags, skip_tags, deploys=deploys)
        problems += unknown_variables(map(str, variables), options)
        problems += internal(self._inventory(variables))
        values = self._values(variables, options)
        old, clashing = renamed(self._values(variables, RENAMED), values)
        problems += clashing
        for message in old:
            self._display.deprecated(message, version=REFUSED_FROM, collection_name="whitestar.deploy")
        provider = values.pop("titanic_provider", "")
        problems += wrong_values({"titanic_provider": provider}, options)
        elsewhere = set(UNREAD.get(str(provider), ()))
        if self._connection.transport != "local":
            elsewhere |= ON_TARGET.get(str(provider), set())
        together = {**values, "titanic_provider": provider}
        problems += wrong_values(values, options, elsewhere) or [
            *wrong_address(together),
            *wrong_environment(together),
            *wrong_certificates(together),
            *wrong_together(together),
        ]
        # A run that applies nothing needs none.
        problems += missing(str(provider), packages=self._is_here(variables)) if deploys else []
        result.update(changed=False, problems=problems)
        if not problems:
            result.update(redirect_port=values.get("titanic_api_redirect_port", 0), **asked_of_a_cluster(values))
        if problems:
            result.update(failed=True, msg="Refused before anything was touched:\n" + "\n".join(problems))
        return dict(result)

    def _is_here(self, variables: Mapping[str, Any]) -> bool:
        """Whether modules find the Python packages that this process finds."""
        interpreter = self._templar.template(variables.get("ansible_python_interpreter"))
        return bool(self._connection.transport == "local" and interpreter == sys.executable)

    def _inventory(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """What an inventory says of this target, and what was given as extra variables, as it is written there."""
        found = variables["hostvars"].raw_get(variables["inventory_hostname"]) if "hostvars" in variables else {}
        return found if isinstance(found, Mapping) else {}

    def _values(self, variables: Mapping[str, Any], options: Container[str]) -> dict[str, Any]:
        """Every setting that is known now, by name."""
        values = {}
        for name in sorted(name for name in variables if name in options):
            try:
                values[name] = self._templar.template(variables[name])
            except AnsibleError:
                # It rests on what a later stage gives back.
                continue
        return values
