# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables that are not settings, or are no longer: old names, and what follows from other settings."""

from __future__ import annotations

from collections.abc import Mapping

# What a setting was called in the version before, which the defaults of its role still take in this one.
RENAMED = {
    "titanic_guard_free_mebibytes": "titanic_preflight_free_mebibytes",
    "titanic_guard_lease_seconds": "titanic_preflight_lease_seconds",
    "titanic_target_cluster": "titanic_cluster",
    "titanic_target_engine": "titanic_engine",
    "titanic_target_engine_install": "titanic_engine_install",
    "titanic_target_project": "titanic_project",
    "titanic_target_state_directory": "titanic_state_directory",
}
# The version from which on an old name is refused.
REFUSED_FROM = "1.2.0"
_REPLICAS = ("titanic_api_replicas", "titanic_api_max_replicas")
_SECONDS = ("titanic_api_ready_seconds", "titanic_api_drain_seconds")
_TLS = ("titanic_api_tls", "titanic_api_hostname", "titanic_secrets_tls")
# What could be handed to a role under such a name, and follows from these settings; without one it follows from a run.
_MADE_OF = {
    "account": ("titanic_database_local_account",),
    "address": ("titanic_api_address", "titanic_api_port"),
    "adopts": ("titanic_target_namespace_adopt",),
    "bindir": ("titanic_database_local_bindir",),
    "cluster": ("titanic_cluster", "titanic_project"),
    "database_bindir": ("titanic_database_local_bindir",),
    "database_external": ("titanic_database_external",),
    "database_kind": ("titanic_database_kind",),
    "database_logins": ("titanic_database_owner", "titanic_database_user"),
    "database_name": ("titanic_database_name",),
    "database_owner": ("titanic_database_owner",),
    "database_user": ("titanic_database_user",),
    "directory": ("titanic_state_directory",),
    "drain_seconds": _SECONDS[1:],
    "engine": ("titanic_engine", "titanic_project"),
    "environment": ("titanic_api_environment",),
    "front_door": ("titanic_api_address", "titanic_api_port"),
    "host": ("titanic_api_hostname",),
    "max_replicas": _REPLICAS[1:],
    "owner_password_file": ("titanic_state_directory",),
    "password_file": ("titanic_state_directory",),
    "pgadmin": ("titanic_database_pgadmin",),
    "port": ("titanic_api_port",),
    "promises": ("titanic_api_promises",),
    "ready_seconds": _SECONDS[:1],
    "redirect_port": ("titanic_api_redirect_port",),
    "releases_kept": ("titanic_api_releases_kept",),
    "replicas": _REPLICAS[:1],
    "rests_on": ("titanic_database_kind",),
    "state_directory": ("titanic_state_directory",),
    "tls": _TLS,
    "tls_directory": ("titanic_state_directory",),
    "tls_files": _TLS,
    "tools": ("titanic_state_directory",),
    "url": ("titanic_api_address", "titanic_api_port", "titanic_api_hostname"),
    "write_tokens": ("titanic_api_write_tokens",),
    "write_tokens_file": ("titanic_state_directory",),
    "write_tokens_stored": ("titanic_secrets_remote",),
}
_ROLES = {
    "api": "cluster database database_bindir engine front_door image state_directory tls_files tools write_tokens_file "
    "write_tokens_stored",
    "database": "cluster connection directory engine owner_password_file password_file state_directory tls_directory "
    "tools",
    "drift": "account bindir cluster database_kind database_name database_owner database_user engine state_directory",
    "guard": "account address adopts cluster continues deploys engine installs_engine needs needs_running overlays "
    "plan plans port read_only redirect_port state_directory tags volume",
    "image": "cluster directory engine environment planned state_directory",
    "maintenance": "cluster state_directory",
    "manifests": "jobs objects replicas secrets",
    "plan": "reality settings stages",
    "rollback": "cluster drain_seconds engine max_replicas ready_seconds releases_kept replicas state_directory",
    "schema": "always cluster database engine image release rests_on state_directory",
    "secrets": "cluster database_external database_kind database_logins directory pgadmin write_tokens",
    "seed": "always cluster database engine image rests_on sha256 state_directory",
    "status": "account address bindir cluster engine host state_directory tls url",
    "teardown": "account address bindir cluster drain_seconds engine ready_seconds state state_directory",
    "verify": "address did host promises release tls url",
}
# What roles could be handed in the version before and an inventory could not set, with what to set instead.
FOLLOWING: Mapping[str, tuple[str, ...]] = {
    f"titanic_{role}_{name}": _MADE_OF.get(name, ()) for role, names in _ROLES.items() for name in names.split()
}


def following(name: str) -> str:
    """Why a variable is no setting, if it follows from others; empty for any other name."""
    if name not in FOLLOWING:
        return ""
    settings = " or ".join(FOLLOWING[name])
    return f"this variable follows from other settings. {f'Set {settings} instead.' if settings else 'Leave it out.'}"
