# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one workload that every target renders, and what identifies a release and a run."""

from __future__ import annotations

import getpass
import multiprocessing
import os
import socket
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.whitestar.deploy.plugins.module_utils.common.address import bare_host, host_port, published
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import stable_hash
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Process
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.definition import upstreams
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import (
    command_job,
    merge_overrides,
    release_objects,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.rbac import rules
from ansible_collections.whitestar.deploy.plugins.module_utils.release.http_checks import release_promises
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import kinds_of

SYSTEM_STATE_DIRECTORY = Path("/var/lib")
CONFIG_DIGITS = 6
# Debian's, in the image. psycopg2's wheel has an OpenSSL of its own, which finds none for ``sslrootcert=system``.
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
# Tags of the site under which no release is started, and those that go on from a deployment.
BACKUPS = {"backup", "restore", "drill"}
BESIDE_DEPLOYING = {
    "seed",
    "verify",
    "status",
    "drift",
    "rollback",
    "rotate",
    "maintenance",
    "stop",
    "start",
    "teardown",
    *BACKUPS,
}
GOES_ON = ("schema", "seed", "api", "verify", "maintenance", "rotate")
SERVES = "no new release: {release} serves already"
# What the summary says of each action, once it is done and in check mode.
RELEASES = {
    "none": (SERVES, SERVES),
    "awaited": (
        f"{SERVES}, all its pods are ready now",
        f"{SERVES}, its pods that are not ready would be waited for",
    ),
    "restarted": (
        "release {release} was not running and serves again",
        "release {release} is not running and would serve again",
    ),
    "resumed": (
        "release {release} serves; a deployment that was cut off is finished",
        "release {release} serves; a deployment that was cut off would be finished",
    ),
    "rotated": (
        "release {release} serves with the new secrets",
        "release {release} would serve with new secrets",
    ),
    "deployed": ("release {release} serves{instead}", "release {release} would serve{instead}"),
}
UNKNOWN = ("release {release} serves", "release {release} is the last that was deployed")


def database_environment(connection: dict[str, Any]) -> dict[str, str]:
    """Environment variables of the service for a database ``connection``.

    Keys: host, port, name, user, owner, and where they apply password_file, owner_password_file, sslmode, sslrootcert.
    Raises AnsibleFilterError for any other key.
    """
    names = {
        "host": "HOST",
        "port": "PORT",
        "name": "NAME",
        "user": "USER",
        "password_file": "PASSWORD_FILE",
        "owner": "OWNER",
        "owner_password_file": "OWNER_PASSWORD_FILE",
        "sslmode": "SSLMODE",
        "sslrootcert": "SSLROOTCERT",
    }
    unknown = sorted(set(connection) - set(names))
    if unknown:
        raise AnsibleFilterError(f"the database connection has unknown keys: {', '.join(unknown)}")
    return {f"TITANIC_DATABASE_{names[key]}": str(value) for key, value in connection.items()}


def database_address(connection: dict[str, Any]) -> str:
    """Where a database ``connection`` leads, such as ``titanic-database:5432/titanic``."""
    return f"{connection['host']}:{connection['port']}/{connection['name']}"


def database_connection(accounts: dict[str, Any], server: dict[str, Any]) -> dict[str, Any]:
    """The database connection of some ``accounts`` (name, user, owner and their password files), with where it leads.

    ``server`` has ``provider``, ``kind``, ``directory`` (of the local database), ``tls``, ``tls_directory`` (where its
    authority is) and ``external``: host and, where they are not the usual ones, port, sslmode and authority.
    """
    authority = f"{server['tls_directory']}/authority"
    if server["kind"] == "external":
        return accounts | _external(server["external"], authority)
    if server["kind"] == "cloudnative_pg":
        return accounts | {"host": "titanic-database-rw", "port": 5432, "sslmode": "require"}
    hosts = {"compose": "database", "kubernetes": "titanic-database"}
    found = {"host": hosts.get(server["provider"], f"{server['directory']}/run"), "port": 5432}
    return accounts | found | ({"sslmode": "verify-full", "sslrootcert": authority} if server["tls"] else {})


def _external(external: dict[str, Any], authority_file: str) -> dict[str, Any]:
    """Where a server is that others run; without an authority, verify-full takes those that the image trusts."""
    sslmode = external.get("sslmode") or "verify-full"
    trusted = authority_file if external.get("authority") else SYSTEM_AUTHORITIES if sslmode == "verify-full" else ""
    found = {"host": external.get("host", ""), "port": int(external.get("port") or 5432), "sslmode": sslmode}
    return found | ({"sslrootcert": trusted} if trusted else {})


def reverse_proxy(settings: dict[str, Any]) -> dict[str, Any]:
    """How the reverse proxy is reached, from settings: provider, address, port, hostname, tls, given, state_directory.

    ``given`` is the certificate as titanic_secrets_tls has it. The result has ``address`` (host:port), ``url`` (what
    users call it), ``host`` (the name to ask by where that is not the address, as on Kubernetes), ``tls`` (hostname and
    authority, whom to trust: a file on a host, on Kubernetes as PEM; empty for plain HTTP) and ``files`` (on a host,
    of the certificate, by name).
    """
    kind, name, port = settings["tls"], settings["hostname"], int(settings["port"])
    cluster = settings["provider"] == "kubernetes"
    address = host_port(settings["address"], port)
    given = dict(settings["given"]) if kind in {"given", "acme"} else {}
    place = f"{settings['state_directory']}/secrets/tls"
    files = {} if cluster else {key: f"{place}/{key}" for key in given}
    known = given if cluster else files
    trusted = {
        "given": known.get("certificate", ""),
        "internal": f"{settings['state_directory']}/front/caddy/pki/authorities/local/root.crt",
        "acme": known.get("authority", ""),
    }
    scheme, usual = ("http", 80) if kind == "none" else ("https", 443)
    # A cluster is asked by name, wherever the address is that leads to it; a host by its address without certificate.
    called = (name if port == usual else f"{name}:{port}") if cluster or kind != "none" else address
    return {
        "address": address,
        "url": f"{scheme}://{called}",
        "host": name if cluster else "",
        "tls": {} if kind == "none" else {"hostname": name, "authority": trusted[kind]},
        "files": files,
    }


def database_secret_files(connection: dict[str, Any]) -> dict[str, str]:
    """The files with secrets that a database ``connection`` names, by their own names."""
    paths = (connection.get(key) for key in ("password_file", "owner_password_file", "sslrootcert"))
    return {Path(path).name: str(path) for path in paths if path and path != SYSTEM_AUTHORITIES}


def server_arguments(settings: dict[str, Any]) -> list[str]:
    """PostgreSQL's ``settings`` as arguments of its server, such as ``--work_mem=8MB``."""
    return [f"--{name}={value}" for name, value in sorted(settings.items())]


def workload(settings: dict[str, Any]) -> dict[str, Any]:
    """The workload: everything that any target needs to run a release, and nothing that belongs to one target.

    ``settings`` has ``image`` (reference, identity, description with version and schema), ``command``, ``port``,
    ``replicas``, ``environment``, ``database`` (see :func:`database_environment`; owner and its password are left
    out, the serving program must not have them), ``secret_files`` (paths by name), ``resources`` and ``user``,
    ``probes`` (paths: alive, ready, smoke, metrics and aliases) and ``promises``.
    The result has the same keys besides ``config`` (hash of all of it but the image and what is only asked once the
    release serves) and ``release`` (image and configuration in one id); the promises are among the probes. Raises
    AnsibleFilterError if a key is missing.
    """
    try:
        image = settings["image"]
        connection = {key: value for key, value in settings["database"].items() if not key.startswith("owner")}
        environment = database_environment(connection) | {k: str(v) for k, v in settings["environment"].items()}
        built: dict[str, Any] = {
            "command": list(settings["command"]),
            "port": int(settings["port"]),
            "replicas": int(settings["replicas"]),
            "environment": environment,
            "secret_files": dict(settings["secret_files"]),
            "resources": dict(settings["resources"]),
            "user": int(settings["user"]),
            "overrides": dict(settings.get("overrides", {})),
            "probes": {name: settings["probes"][name] for name in ("alive", "ready", "smoke")},
        }
        description = image["description"] or {"version": "", "schema": {"required": "", "oldest_tolerated": ""}}
        built["config"] = stable_hash(built)
        built["release"] = f"{image['identity']}-{built['config'][:CONFIG_DIGITS]}"
        built["image"] = image["reference"]
        built["image_facts"] = {
            "identity": image["identity"],
            "version": description["version"],
            "schema": {key: description["schema"][key] for key in ("required", "oldest_tolerated")},
        }
        promises = release_promises(settings["promises"], built["release"])
        built["probes"] |= {name: settings["probes"][name] for name in ("metrics", "aliases")} | {"promises": promises}
    except KeyError as error:
        raise AnsibleFilterError(f"the workload's settings lack {error}") from error
    built["environment"]["TITANIC_RELEASE"] = built["release"]
    return built


def _user() -> str:
    """Who TITANIC_USER says to run this, or the account that does; its number where it has no name."""
    try:
        return os.environ.get("TITANIC_USER") or getpass.getuser()
    except (OSError, KeyError):  # the latter before Python 3.13
        return f"uid {os.getuid()}"


def run_identity(_value: object) -> dict[str, Any]:
    """Who runs this: host, user, and pid and start time of the ``ansible-playbook`` process, for the lock.

    The input is not used.
    """
    parent = multiprocessing.parent_process()
    pid = (parent.pid if parent else None) or os.getpid()
    process = Process.of(pid)
    started = process.started if process else 0
    return {"host": socket.gethostname(), "user": _user(), "pid": pid, "started": started}


def run_kind(tags: list[str], skipped: list[str], installs_engine: bool = False) -> list[str]:
    """What a run of the site with these tags does, as titanic_preflight takes it (``__titanic_preflight_run``)."""
    asked = set(tags)
    made = bool(asked & {"all", "secrets"}) and "secrets" not in skipped
    kinds = {
        "reads": asked <= {"status", "drift"},
        "deploys": not asked <= BESIDE_DEPLOYING,
        "continues": bool(asked & {*GOES_ON, "all", "database"}) and not made,
        "needs_running": bool(asked & {*GOES_ON, *BACKUPS, "rollback"}) and not asked & {"all", "database", "start"},
        "rotates": "rotate" in asked,
        "installs_engine": installs_engine and "target" not in skipped and bool(asked & {"all", "target"}),
    }
    return [kind for kind, holds in kinds.items() if holds]


def identity_text(identity: dict[str, Any]) -> str:
    """``user@host`` of a run's identity, for the ledger."""
    return f"{identity['user']}@{identity['host']}"


def summary(asked: dict[str, Any], url: str, release: str, actions: dict[str, Any]) -> list[str]:
    """The end of a run in plain lines: what changed, where it serves, which release, what to do next.

    ``asked`` is what :mod:`http_checks` returned. ``actions`` has what was done to ``release``, ``schema`` and rows
    (``seed``), the release that served ``before``, and before the run the one to roll back to (``rollback_to``). In
    check mode: what would be, as far as that can be known.
    """
    check = bool(asked.get("check_mode"))
    replaced = actions.get("before") if actions.get("before") != release else ""
    instead = f" instead of {replaced}" if replaced else ""
    words = RELEASES.get(str(actions.get("release")), UNKNOWN)[check]
    lines = [words.format(release=release, instead=instead)]
    schema, seed = actions.get("schema") or {}, actions.get("seed") or {}
    if check:
        return [*lines, *_foreseen(schema, seed, unknown=actions.get("release") == "deployed")]
    if schema:
        lines.append(
            f"schema {schema['to']}" + (f", migrated from {schema['from'] or 'nothing'}" if schema["changed"] else "")
        )
    if seed:
        lines.append(f"seed: {seed['inserted']} inserted, {seed['updated']} updated, {seed['unchanged']} unchanged")
    if message := asked.get("maintenance"):
        ends = "--tags maintenance -e titanic_maintenance_enabled=false"
        return [*lines, f"in maintenance, so that no promise was asked: {message}", f"next: end it with {ends}"]
    lists = {path: count for path, count in asked.get("items", {}).items() if "?" not in path}
    lines += [f"{count} {path.strip('/')} at {url}{path}" for path, count in lists.items()] or [url]
    if asked.get("kept"):
        lines.append(f"{len(asked['kept'])} promises asked, all kept")
    back = replaced or actions.get("rollback_to")
    steps = [f"open {url}/ in a browser", "look with --tags status", f"go back to {back} with --tags rollback"]
    lines.append(f"next: {', '.join(steps if back else steps[:2])}")
    return lines


def _foreseen(schema: dict[str, Any], seed: dict[str, Any], *, unknown: bool) -> list[str]:
    """What a run without ``--check`` would do besides; ``unknown`` is whether only a release that is built can say."""
    lines = []
    if schema.get("changed"):
        lines.append(f"schema would be migrated from {schema['from'] or 'nothing'} to {schema['to']}")
    if seed.get("changed"):
        lines.append(f"seed: {seed['inserted']} would be inserted, {seed['updated']} updated")
    if unknown and not (schema and seed):
        lines.append("what the release migrates and seeds it can say once it is built")
    return [*lines, "nothing was changed, and no promise was asked", "next: run it without --check"]


def state_directory(name: str) -> str:
    """The usual place for the state of a deployment called ``name``: the system's for root, otherwise the user's own.

    The user's is ``$XDG_STATE_HOME`` or ``~/.local/state`` (XDG Base Directory Specification 0.8).
    """
    if os.geteuid() == 0:
        return str(SYSTEM_STATE_DIRECTORY / name)
    own = os.environ.get("XDG_STATE_HOME")
    return str((Path(own) if own else Path.home() / ".local" / "state") / name)


def validate_environment(image: dict[str, Any], environment: dict[str, Any]) -> dict[str, Any]:
    """The ``image`` as it is, if it takes this ``environment`` by the ``settings`` and ``rules`` it tells of.

    Only names that begin as all its settings do are its own. Raises AnsibleFilterError for one that it does not know,
    and for a value that breaks its rule.
    """
    known = image["description"].get("settings", [])
    prefix = os.path.commonprefix(known)  # noqa: RUF071 (by characters, as it is meant here)
    for name in sorted(environment):
        if known and name.startswith(prefix) and name not in known:
            close = get_close_matches(name, known, n=1)
            meant = f"Did you mean {close[0]}?" if close else f"It has {', '.join(known)}"
            raise AnsibleFilterError(f"titanic_api_environment: {name} is no setting of this release. {meant}")
    for name, rule in image["description"].get("rules", {}).items():
        if name in environment and (wanted := broken(rule, str(environment[name]))):
            raise AnsibleFilterError(f"titanic_api_environment: {name} must be {wanted}, not {environment[name]!r}")
    return image


def broken(rule: dict[str, Any], text: str) -> str:
    """What a text should be that breaks a release's rule; empty if it keeps it, or if the rule is of a later kind."""
    if rule["type"] == "choice":
        return "" if text in rule["choices"] else f"one of {', '.join(rule['choices'])}"
    convert = {"integer": int, "number": float}.get(rule["type"])
    if convert is None:
        return ""
    try:
        kept = rule["least"] <= convert(text) <= rule["most"]
    except ValueError:
        kept = False
    return "" if kept else f"{rule['least']} to {rule['most']} {rule['unit']}"


def deployer_rules(_value: object) -> list[dict[str, Any]]:
    """What a deployer has to be allowed in a namespace, as rules of a Role. The input is not used."""
    return rules()


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        return {
            "bare_host": bare_host,
            "command_job": command_job,
            "compose_ports": published,
            "compose_upstreams": upstreams,
            "database_address": database_address,
            "database_connection": database_connection,
            "database_environment": database_environment,
            "database_secret_files": database_secret_files,
            "deployer_rules": deployer_rules,
            "host_port": host_port,
            "identity_text": identity_text,
            "merge_overrides": merge_overrides,
            "release_objects": release_objects,
            "release_promises": release_promises,
            "reverse_proxy": reverse_proxy,
            "rotation_kinds": kinds_of,
            "run_identity": run_identity,
            "run_kind": run_kind,
            "server_arguments": server_arguments,
            "state_directory": state_directory,
            "summary": summary,
            "validate_environment": validate_environment,
            "workload": workload,
        }
