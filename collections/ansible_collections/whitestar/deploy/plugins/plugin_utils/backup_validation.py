# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which settings of backups go together, on each provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.common.validation import check_type_dict, check_type_list
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import SHORTEST_KEY

# The secrets with which an S3 repository is reached.
STORE_KEYS = ("backup_s3_key", "backup_s3_key_secret")
# Why there are no backups of a database on a cluster, by its kind.
NO_BACKUPS = {
    "pod": (
        "backups are on local, compose and titanic_database_kind cloudnative_pg only, until titanic_backup serves "
        "pods. Leave it out, and dump the data as docs/user/database.md says."
    ),
    "external": (
        "whoever runs an external database backs it up. Leave it out, and have its owner archive WAL, keep base "
        "backups, and prove that they restore."
    ),
}


def wrong_backups(values: Mapping[str, Any]) -> list[str]:
    """Why there can be no backups as they are asked for, if so."""
    places = [dict(each) for each in check_type_list(values.get("titanic_backup_repositories") or [])]
    provider = values.get("titanic_provider")
    if not boolean(values.get("titanic_backup_enabled", False)):
        return []
    kind = str(values.get("titanic_database_kind", "pod"))
    if provider == "kubernetes" and kind in NO_BACKUPS:
        return [f"titanic_backup_enabled: {NO_BACKUPS[kind]}"]
    most = 2 if provider == "compose" else 1
    if not 0 < len(places) <= most:
        kept = f"{provider} keeps backups in one repository{' or two' if most > 1 else ''}"
        bucket = "Name a bucket, such as [{type: s3, endpoint: s3.example.org, bucket: titanic}]."
        remedy = bucket if provider == "kubernetes" else "Name one directory, such as [{path: /srv/backups}]."
        return [f"titanic_backup_repositories: {kept}, and {len(places)} are named. {remedy}"]
    state = str(values.get("titanic_state_directory", "/nowhere"))
    if found := [problem for place in places for problem in _wrong_place(place, str(provider), state)]:
        return found
    given = check_type_dict(values.get("titanic_secrets_values") or {})
    key = given.get("backup_key", "")
    if key and len(str(key)) < SHORTEST_KEY:
        what = f"backup_key has {len(str(key))} characters, {SHORTEST_KEY} are needed"
        return [f"titanic_secrets_values: {what}. Give a random one."]
    missing = [name for name in STORE_KEYS if not given.get(name)]
    stored = values.get("titanic_secrets_source") == "external_secrets"
    if missing and not stored and any(place.get("type") == "s3" for place in places):
        what = f"an S3 repository takes {' and '.join(missing)}"
        return [f"titanic_secrets_values: {what}. Give what the store calls access key and secret key."]
    return []


def _wrong_place(place: Mapping[str, Any], provider: str, state: str) -> Iterator[str]:
    """Why one repository cannot be used on this provider, if so."""
    name, kind, path = "titanic_backup_repositories", place.get("type", "directory"), str(place.get("path", ""))
    if kind == "s3" and provider == "local":
        yield f"{name}: local keeps backups in a directory. Name the mount of a bucket, or deploy to compose."
    elif kind == "s3":
        missing = [key for key in ("endpoint", "bucket") if not place.get(key)]
        if missing:
            yield f"{name}: an S3 repository has no {' and no '.join(missing)}. Name that."
        elif "/" in str(place["endpoint"]):
            yield f"{name}: {place['endpoint']} is no host. Leave scheme and path out, as in s3.example.org:9000."
        if path:
            yield f"{name}: an S3 repository has no path. Name the directory in the bucket as prefix."
        if (authority := place.get("authority")) and "BEGIN CERTIFICATE" not in str(authority):
            yield f"{name}: authority is no certificate in PEM. Give the text from its BEGIN line to its END line."
    elif provider == "kubernetes":
        yield f"{name}: CloudNativePG keeps backups in a bucket. Write type: s3, endpoint and bucket."
    elif not path.startswith("/"):
        yield f"{name}: {path} is not an absolute path"
    elif Path(path).is_relative_to(state):
        what = f"{path} is inside titanic_state_directory, and would be lost with it"
        yield f"{name}: {what}. Name a directory on another disk or machine."
