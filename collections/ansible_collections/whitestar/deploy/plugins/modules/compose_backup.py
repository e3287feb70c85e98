#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the settings and the repositories of a Compose target's backups, and make a backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_backup
short_description: Set up backups of a Compose target, or make one
description:
  - With O(state=prepared) keeps the settings and pgBackRest's configuration in the state directory. Each repository is
    written to and read first; one that is not this deployment's is refused, and so is one with backups of a database
    that is not there any more.
  - With O(state=first) makes the repositories this database's where they are new, and a full backup where there is
    none.
  - With O(state=present) makes a backup now, and removes those that neither count nor age keeps.
version_added: 1.1.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.engine
options:
  state_directory:
    description: The state directory of the target.
    type: path
    required: true
  state:
    description: Whether to prepare, to have a first backup, or to make one.
    type: str
    choices: [prepared, first, present]
    default: present
  settings:
    description: What is kept in the state directory; needed to prepare.
    type: dict
    default: {}
    suboptions:
      site: {description: Whose backups they are., type: str}
      image: {description: "The image with PostgreSQL and pgBackRest, by digest.", type: str}
      repositories: {description: Where they are kept., type: list, elements: dict}
      mounts: {description: "What a container mounts to reach them (C(SOURCE:TARGET)).", type: list, elements: str}
      key_file: {description: "File with the key, beside those with credentials.", type: path}
      reaches_out: {description: Whether a repository is not on this host., type: bool}
      compression: {description: How it is compressed., type: str, choices: [zstd, none]}
      wal_mebibytes: {description: MiB of WAL that may wait for a repository., type: int}
      schedule: {description: How often a backup is made., type: str, choices: [hourly, daily, weekly]}
      full_days: {description: After how many days a backup is a full one., type: float}
      keep_full: {description: Full backups that are kept at least., type: int}
      keep_days: {description: Days of which any moment can be restored., type: float}
      drill_max_days: {description: How old the last good drill may be., type: float}
  restores:
    description: Whether the database is about to be restored, and so may be missing or another one.
    type: bool
    default: false
  kind:
    description: What to make; V(auto) is a full one as often as the settings say.
    type: str
    choices: [auto, full, incremental]
    default: auto
  name:
    description: Name of a restore point that is made besides, to which one can restore.
    type: str
    default: ""
  by:
    description: Who makes it, for the ledger.
    type: str
    default: somebody
attributes:
  check_mode:
    description: Says whether a backup would be made, and which.
    support: full
  diff_mode:
    description: Shows the steps.
    support: full
"""

EXAMPLES = r"""
- name: Create a backup
  whitestar.deploy.compose_backup:
    engine: {socket: /var/run/docker.sock, program: docker, project: titanic}
    state_directory: /var/lib/titanic
    by: alice@laptop
"""

RETURN = r"""
backup:
  description: The backup that was made; empty if none was.
  returned: success
  type: dict
steps:
  description: What was done, in words.
  returned: success
  type: list
  elements: str
"""

import hashlib
import hmac
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    json_bytes,
    make_directory,
    read_json,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.backups import ACCOUNT, ComposeBackups
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.project import Project
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.volumes import data_volume
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release import pgbackrest
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import POINT, Backup, BackupError

SETTINGS = {
    "site": {"type": "str"},
    "image": {"type": "str"},
    "repositories": {"type": "list", "elements": "dict"},
    "mounts": {"type": "list", "elements": "str"},
    "key_file": {"type": "path", "no_log": False},
    "reaches_out": {"type": "bool"},
    "compression": {"type": "str", "choices": ["zstd", "none"]},
    "wal_mebibytes": {"type": "int"},
    "schedule": {"type": "str", "choices": ["hourly", "daily", "weekly"]},
    "full_days": {"type": "float"},
    "keep_full": {"type": "int"},
    "keep_days": {"type": "float"},
    "drill_max_days": {"type": "float"},
}
# What pgBackRest has at the root of a repository, and what a check that was interrupted has left there.
OWN = {"archive", "backup", "lost+found", "titanic-check"}
OWNER = (ACCOUNT, ACCOUNT)


def ensure_directories(state: State, repositories: list[dict[str, Any]], *, check: bool) -> list[str]:
    """Have the directories of repositories, or say which are missing. Raises BackupError for one that cannot be."""
    steps = []
    for place in repositories:
        if place["type"] != "directory":
            continue
        path = Path(place["path"])
        if path.resolve().is_relative_to(state.root.resolve()):
            raise BackupError(
                f"titanic_backup_repositories: {path} is inside the state directory, and would be lost with it. "
                f"Name a directory on another disk or machine."
            )
        found = {each.name for each in path.iterdir()} if path.is_dir() else set()
        if others := sorted(found - OWN):
            what = f"{path} holds what no backup made ({', '.join(others[:5])})"
            raise BackupError(f"titanic_backup_repositories: {what}. Empty it, or name another one.")
        if not path.is_dir():
            steps.append(f"make the directory {path}")
        if not check:
            make_directory(path, 0o700, OWNER)
    return steps


def prepare(engine: DockerClient, state: State, options: dict[str, Any], *, check: bool) -> list[str]:
    """Keep the settings: what was done, in words. Raises BackupError, EngineError, OSError, ValueError."""
    key = Path(options["settings"]["key_file"])
    settings: dict[str, Any] = {**options["settings"], "secrets_check": secrets_check(key)}
    files = pgbackrest.files(settings)
    backups = ComposeBackups(engine, state, settings)
    if key.exists() and (problem := pgbackrest.key_problem(key.read_text(encoding="utf-8").strip())):
        raise BackupError(problem)
    steps = ensure_directories(state, settings["repositories"], check=check)
    place = backups.configuration
    stale = [name for name, text in files.items() if not has_content(place / name, text.encode(), 0o644)]
    content = json_bytes(dict(settings))
    if stale or not has_content(state.backup / "settings.json", content, 0o644):
        steps.append(f"write {', '.join(['settings.json', *stale])} of backups")
    if check:
        return steps
    make_directory(place, 0o755)
    make_directory(backups.notes, 0o700, OWNER)
    before = {name: _read(place / name) for name in files}
    for name in stale:
        write_atomically(place / name, files[name].encode(), 0o644)
    try:
        refuse_wrong(backups, engine, state, restores=options["restores"], writes=bool(steps))
    except BaseException:
        for name in stale:
            _put_back(place / name, before[name])
        raise
    write_atomically(state.backup / "settings.json", content, 0o644)
    return steps


def secrets_check(key: Path) -> str:
    """What tells these secrets from others and nothing about them, so that new ones are tried out; empty for none."""
    if not key.exists():
        return ""
    others = [path.read_bytes() for path in sorted(key.parent.glob("backup_s3_*"))]
    told = b"titanic repository" + b"\0".join(others)
    return hmac.new(key.read_bytes().strip(), told, hashlib.sha256).hexdigest()[:32]


def refuse_wrong(backups: ComposeBackups, engine: DockerClient, state: State, *, restores: bool, writes: bool) -> None:
    """Refuse repositories that cannot be used, or are another database's. Raises BackupError, EngineError.

    Where nothing is new they are not asked: a release does not wait for one that is away.
    """
    told = backups.checked() if writes else read_json(backups.notes / "info.json", [])
    systems = [each["system-id"] for stanza in told for each in stanza.get("db", [])]
    if restores or not systems:
        return
    backups.refuse_others(told)
    volume = Project.of(state, engine).full_name(data_volume(state))
    if engine.get(f"/volumes/{volume}") is None:
        raise BackupError(
            f"titanic_backup_repositories: a repository has the backups of a database that is not here "
            f"(system {systems[-1]}), and a new one would replace it. Bring it back (--tags restore -e "
            f"titanic_restore_to=latest), or name a new place."
        )


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _put_back(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, content, 0o644)


def first(backups: ComposeBackups, by: str, *, check: bool) -> tuple[list[str], Backup | None]:
    """Have repositories of this database, and one full backup in them. Raises BackupError, EngineError."""
    ledger = backups.state.ledger()
    site = "; ".join(str(place.get("path") or place.get("bucket")) for place in backups.settings["repositories"])
    if ledger.last_event("backup_first", repository=site):
        # A release does not wait for a repository that is away; every run says that it is.
        return [], None
    if check:
        return ["make the repository", "make the first backup"], None
    told = backups.told()
    backups.refuse_others(told)
    steps = []
    if pgbackrest.empty(told):
        steps.append("make the repository")
        backups.ask("rest", "stanza-create")
    backup = None
    if not all(pgbackrest.listed(backups.told()).values()):
        steps.append("make the first backup")
        backup = make_one(backups, "full", "", by)
    state = backups.state
    state.write_ledger(state.ledger().with_event("backup_first", repository=site))
    return steps, backup


def make_one(backups: ComposeBackups, kind: str, name: str, by: str) -> Backup:
    """Make a backup and record it, with a restore point after it. Raises BackupError, EngineError, OSError."""
    backup = backups.make(kind)
    ledger = backups.state.ledger().with_event(
        "backup", label=backup.label, by=by, bytes=backup.bytes, sealed=backup.sealed
    )
    if name:
        ledger = ledger.with_event("point", **backups.mark(name, named=True))
    backups.state.write_ledger(ledger)
    return backup


def act(engine: DockerClient, state: State, options: dict[str, Any], *, check: bool) -> tuple[list[str], Backup | None]:
    """What was done, in words, and the backup. Raises BackupError, EngineError, OSError, ValueError."""
    name, by = options["name"], options["by"]
    if name and not POINT.fullmatch(name):
        raise BackupError(f"titanic_backup_name: '{name}' is no name. Use letters, digits, '.', _ and -.")
    if options["state"] == "prepared":
        return prepare(engine, state, options, check=check), None
    if options["state"] == "first" and check and ComposeBackups.of(engine, state) is None:
        return ["make the first backup"], None
    backups = ComposeBackups.needed(engine, state)
    if options["state"] == "first":
        return first(backups, by, check=check)
    backups.server()
    backups.refuse_others(backups.told())
    if check:
        return ["make a backup"], None
    return [f"make backup {(backup := make_one(backups, options['kind'], name, by))}"], backup


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "engine": DockerClient.OPTION,
            "state_directory": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["prepared", "first", "present"], "default": "present"},
            "settings": {"type": "dict", "default": {}, "options": SETTINGS},
            "restores": {"type": "bool", "default": False},
            "kind": {"type": "str", "choices": ["auto", "full", "incremental"], "default": "auto"},
            "name": {"type": "str", "default": ""},
            "by": {"type": "str", "default": "somebody"},
        },
        supports_check_mode=True,
    )
    options, check = module.params, module.check_mode
    state = State(Path(options["state_directory"]))
    try:
        with nullcontext() if check else state.exclusively():
            steps, backup = act(DockerClient.of(options["engine"]), state, options, check=check)
    except (BackupError, EngineError, OSError, ValueError) as error:
        module.fail_json(msg=f"no backup was made: {error}")
    module.exit_json(
        changed=bool(steps),
        steps=steps,
        backup=asdict(backup) if backup else {},
        diff={"before": "", "after": "".join(f"{step}\n" for step in steps)},
    )


if __name__ == "__main__":
    main()
