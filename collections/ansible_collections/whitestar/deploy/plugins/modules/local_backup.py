#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the settings and the repository of a local target's backups, and make a backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: local_backup
short_description: Set up backups of a local target, or make one
description:
  - With O(state=prepared) keeps the settings in the state directory and lets PostgreSQL's account read the key. A
    repository that is not this deployment's is refused, and so is one with backups of a database that is not there any
    more, since a new one would be made in its place.
  - With O(state=first) makes the repository this database's where it is new, and a full backup where there is none.
  - With O(state=present) makes a backup now, and removes those that neither count nor age keeps.
version_added: 1.1.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.twins.target]
options:
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
      site: {description: Whose backups they are; the repository is refused to another., type: str}
      repository: {description: The directory of the repository., type: path}
      key_file: {description: File with the key., type: path}
      account: {description: Account that PostgreSQL runs as instead of root., type: str}
      bindir: {description: Directory of PostgreSQL's programs., type: path}
      compression: {description: How it is compressed., type: str, choices: [zstd, none]}
      wal_mebibytes: {description: MiB of WAL that may wait for the repository., type: int}
      schedule: {description: How often a backup is made., type: str, choices: [hourly, daily, weekly]}
      full_days: {description: After how many days a backup is a full one., type: float}
      keep_full: {description: Full backups that are kept at least., type: int}
      keep_days: {description: Days of which any moment can be restored., type: float}
      drill_max_days: {description: How old the last good drill may be., type: float}
  program:
    description: Text of the program that encrypts, which PostgreSQL calls; needed to prepare.
    type: str
    default: ""
  restores:
    description: Whether the database is about to be restored, and so may be missing.
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
  whitestar.deploy.local_backup:
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

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    closed_to_others,
    has_content,
    json_bytes,
    make_directory,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.base_backup import expire, make, mark, server_of
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError
from ansible_collections.whitestar.deploy.plugins.module_utils.local.repository import RECORD, Repository
from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import POINT, Backup, BackupError

SETTINGS = {
    "site": {"type": "str"},
    "repository": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
    "account": {"type": "str"},
    "bindir": {"type": "path"},
    "compression": {"type": "str", "choices": ["zstd", "none"]},
    "wal_mebibytes": {"type": "int"},
    "schedule": {"type": "str", "choices": ["hourly", "daily", "weekly"]},
    "full_days": {"type": "float"},
    "keep_full": {"type": "int"},
    "keep_days": {"type": "float"},
    "drill_max_days": {"type": "float"},
}


def check_repository(repository: Repository, *, restores: bool) -> None:
    """Refuse one that cannot be used. Raises BackupError, OSError, ValueError."""
    state = repository.state
    if repository.root.resolve().is_relative_to(state.root.resolve()):
        raise BackupError(
            f"titanic_backup_repositories: {repository.root} is inside the state directory, and would be lost "
            f"with it. Name a directory on another disk or machine."
        )
    if not _known(repository):
        repository.check_right()
    if Path(repository.settings["key_file"]).exists():
        repository.key_check()
        if (repository.root / RECORD).exists():
            server = server_of(repository)
            major = server.major() if server.bindir.exists() else repository.record()["major"]
            system = repository.check(major, writes=False)["system"]
            if not server.exists() and not restores:
                raise BackupError(
                    f"titanic_backup_repositories: {repository.root} has the backups of a database (system {system}) "
                    f"that is not here, and a new one would be made in its place. Bring it back (--tags restore -e "
                    f"titanic_restore_to=latest), or name a new directory"
                )


def prepare(state: State, options: dict[str, Any], *, check: bool) -> list[str]:
    """Keep the settings: what was done, in words. Raises BackupError, OSError, ValueError."""
    settings = options["settings"]
    notes = state.backup / "notes"
    repository = Repository(state, {**settings, "notes": str(notes)})
    owner = repository.owner
    check_repository(repository, restores=options["restores"])
    key = Path(settings["key_file"])
    files = {"archive.py": options["program"].encode(), "settings.json": json_bytes(dict(repository.settings))}
    stale = [name for name, content in files.items() if not has_content(state.backup / name, content, 0o644)]
    steps = [f"write {', '.join(stale)} of backups"] if stale else []
    if owner and key.exists() and key.stat().st_uid != owner[0]:
        steps.append(f"let {settings['account']} read the backup's key")
        if not check:
            os.chown(key, *owner)
    python = state.backup / "tools/bin/python"
    if owner and python.exists() and (closed := closed_to_others(python.resolve())):
        raise BackupError(
            f"titanic_backup_python: '{settings['account']}' archives WAL and cannot enter {closed}. Set it to an "
            f"interpreter that is open to others, such as /usr/bin/python3"
        )
    if not check:
        make_directory(state.backup, 0o755)
        make_directory(notes, 0o700, owner)
        for name in stale:
            write_atomically(state.backup / name, files[name], 0o644)
    return steps


def _known(repository: Repository) -> Mapping[str, Any] | None:
    """The event of the ledger that there is this repository, which may be away now."""
    return repository.state.ledger().last_event("backup_first", repository=str(repository.root))


def first(repository: Repository, by: str, *, check: bool) -> tuple[list[str], Backup | None]:
    """Have a repository of this database, and one full backup in it. Raises BackupError, DatabaseError, OSError."""
    server = server_of(repository)
    steps = []
    known = _known(repository)
    if known is None and not (repository.root / RECORD).exists():
        steps.append(f"make the repository {repository.root}")
        if not check:
            repository.create(server.system(), server.major())
    if check and steps:
        return [*steps, "make the first backup"], None
    if known and not (repository.root / RECORD).exists():
        # A release does not wait for it; every run says that it is away.
        return [], None
    repository.check(server.major(), server.system(), writes=False)
    if known is None and not check:
        ledger = repository.state.ledger().with_event("backup_first", repository=str(repository.root))
        repository.state.write_ledger(ledger)
    if repository.backups():
        return steps, None
    steps.append("make the first backup")
    return steps, None if check else make_one(repository, "full", "", by)


def make_one(repository: Repository, kind: str, name: str, by: str) -> Backup:
    """Make a backup and record it, with a restore point after it. Raises BackupError, DatabaseError, OSError."""
    backup = make(repository, kind)
    repository.forget_given_up()
    state = repository.state
    ledger = state.ledger().with_event("backup", label=backup.label, by=by, bytes=backup.bytes, sealed=backup.sealed)
    if name:
        ledger = ledger.with_event("point", **mark(server_of(repository), name, named=True))
    state.write_ledger(ledger)
    return backup


def act(state: State, options: dict[str, Any], *, check: bool) -> tuple[list[str], Backup | None]:
    """What was done, in words, and the backup. Raises BackupError, DatabaseError, OSError, ValueError."""
    name, by = options["name"], options["by"]
    if name and not POINT.fullmatch(name):
        raise BackupError(f"titanic_backup_name: '{name}' is no name. Use letters, digits, '.', _ and -.")
    if options["state"] == "first" and check and Repository.of(state) is None:
        return ["make the first backup"], None
    repository = Repository.needed(state)
    if options["state"] == "first":
        return first(repository, by, check=check)
    repository.check(server_of(repository).major(), server_of(repository).system())
    if check:
        return ["make a backup"], None
    backup = make_one(repository, options["kind"], name, by)
    return [f"make backup {backup}", *(f"remove backup {label}" for label in expire(repository))], backup


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state_directory": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["prepared", "first", "present"], "default": "present"},
            "settings": {"type": "dict", "default": {}, "options": SETTINGS},
            "program": {"type": "str", "default": ""},
            "restores": {"type": "bool", "default": False},
            "kind": {"type": "str", "choices": ["auto", "full", "incremental"], "default": "auto"},
            "name": {"type": "str", "default": ""},
            "by": {"type": "str", "default": "somebody"},
        },
        supports_check_mode=True,
    )
    options, check = module.params, module.check_mode
    state = State(Path(options["state_directory"]))
    backup: Backup | None = None
    try:
        if options["state"] == "prepared":
            steps = prepare(state, options, check=check)
        else:
            with nullcontext() if check else state.exclusively():
                steps, backup = act(state, options, check=check)
    except (BackupError, DatabaseError, OSError, ValueError) as error:
        module.fail_json(msg=f"no backup was made: {error}")
    module.exit_json(
        changed=bool(steps),
        steps=steps,
        backup=asdict(backup) if backup else {},
        diff={"before": "", "after": "".join(f"{step}\n" for step in steps)},
    )


if __name__ == "__main__":
    main()
