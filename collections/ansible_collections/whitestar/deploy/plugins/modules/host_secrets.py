#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep secrets as files that only their owner can read, generated where none is given."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_secrets
short_description: Keep secrets as files
description:
  - Writes each given secret to a file of mode 0600 in a directory of mode 0700, and makes up those that are asked
    for and not given. A secret that was generated once stays until it is rotated.
  - A rotation gives secrets new values and records that in the state directory, which is told of until O(finish).
  - Returns and compares names only, never a value.
version_added: 1.0.0
author: The Titanic team (@whitestar)
options:
  directory: {description: Directory of the files., type: path, required: true}
  given: {description: Secrets by file name., type: dict, default: {}}
  generated:
    description: File names for which a random secret of 43 characters (256 bits) is made up unless given or there.
    type: list
    elements: str
    default: []
  lasting:
    description: Names of secrets that never get another value once they have one, since others were encrypted with it.
    type: list
    elements: str
    default: []
  owners:
    description: >-
      User id (and group id) that a file belongs to, by file name; C(.) is the directory itself. Those not named belong
      to who runs this.
    type: dict
    default: {}
  shared:
    description: >-
      Whether those that O(owners) names are users of this host, who come by the directory: then it has mode 0711,
      unless it belongs to one of them.
      Where the run is not root's, all of them are its own user, and nothing belongs to another.
    type: bool
    default: false
  state_directory: {description: The state directory. Needed for O(rotate) and O(finish)., type: path}
  rotate:
    description: >-
      Kinds of secrets of this directory that get new values. Of V(database) it is the password of the login whose turn
      it is, V(superuser) is the passwords of administrator and owner, V(tokens) leaves the old write tokens good for
      O(overlap_seconds), V(tls) is O(certificates). One that was begun before goes on. What is given as it is gets
      refused before a file is written.
    type: list
    elements: str
    choices: [database, superuser, tokens, tls]
    default: []
  certificates:
    description: >-
      What later tasks write to directories below this one, by its name and then as O(given). Of V(tls) one file has to
      be another one than before.
    type: dict
    default: {}
  overlap_seconds:
    description: How long old write tokens are good beside the new ones, in seconds.
    type: int
    default: 300
  by: {description: Who rotates., type: str, default: somebody}
  finish:
    description: Whether everything uses the new values, so that what was rotated is recorded as finished.
    type: bool
    default: false
attributes:
  check_mode: {description: Says which files would change., support: full}
  diff_mode: {description: Shows names only., support: full}
"""

EXAMPLES = r"""
- name: Create secret files
  whitestar.deploy.host_secrets:
    directory: /var/lib/titanic/secrets
    generated: [database_owner_password, database_app_password]
  no_log: true
"""

RETURN = r"""
written: {description: Names of the files that were written., returned: success, type: list, elements: str}
steps: {description: "What was finished, in words.", returned: success, type: list, elements: str}
"""

import os
import re
import secrets
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    make_directory,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import (
    KINDS,
    NO_CERTIFICATE,
    PASSWORD,
    TOKENS,
    Rotation,
    finish_steps,
    nothing_new,
    renewed_by,
    tokens_text,
)

FILE_MODE = 0o600


def contents(
    directory: Path, options: Mapping[str, Any], rotation: Rotation, renewed: Container[str] = ()
) -> dict[str, bytes]:
    """What each file must hold, by name; ``renewed`` are generated ones that are to be others than they are.

    Raises ValueError for a name that is no plain file name, or an empty value.
    """
    given: Mapping[str, Any] = options["given"]
    wanted: dict[str, bytes] = {}
    for name in [*given, *options["generated"]]:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(
                f"titanic_secrets_values: '{name}' is no name of a secret. Use lower-case letters, digits and _."
            )
        path = directory / rotation.name_of(name)
        if name in given:
            value = given[name]
            if not isinstance(value, str) or not value:
                raise ValueError(f"titanic_secrets_values: '{name}' must be a text that is not empty. Quote numbers.")
            if name == TOKENS:
                overlap = options["overlap_seconds"] if "tokens" in rotation.unfinished else None
                value = tokens_text(read(path), value, overlap)
            wanted[path.name] = value.encode()
        elif path.is_file() and path.stat().st_size and name not in renewed:
            wanted[path.name] = path.read_bytes()
        else:
            wanted[path.name] = secrets.token_urlsafe(32).encode()
    return wanted


def refuse_another(path: Path, content: bytes) -> None:
    """Raise ValueError if a file that is there has another value, which is not shown."""
    if path.is_file() and path.read_bytes().strip() not in (b"", content.strip()):
        raise ValueError(
            f"titanic_secrets_values: {path.name} is not the one in {path}, and what is encrypted with that would be "
            f"lost. Give that one, or move the file away first."
        )


def read(path: Path) -> str:
    """What a file holds; nothing where it is not there."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def begin(directory: Path, options: Mapping[str, Any], rotation: Rotation) -> tuple[Rotation, set[str]]:
    """The rotation with what is asked for begun, and the generated secrets that get new values for that.

    Raises ValueError, naming each secret that is given as it is.
    """
    new = [kind for kind in options["rotate"] if kind not in rotation.unfinished]
    if not new:
        return rotation, set()
    given: Mapping[str, Any] = options["given"]
    kept = {name: read(directory / name) for name in given}
    problems = nothing_new(new, given, kept | {PASSWORD: read(directory / f"{PASSWORD}{rotation.login}")})
    places = {directory / place: own for place, own in options["certificates"].items()}
    if "tls" in new and all(read(place / name) == own[name] for place, own in places.items() for name in own):
        problems.append(NO_CERTIFICATE)
    if problems:
        raise ValueError("\n".join(problems))
    return rotation.begun(new, options["by"]), set(renewed_by(new))


def is_kept(path: Path, content: bytes, uid: int | None) -> bool:
    """Whether the file is as it should be, its owner included if one is asked for."""
    return has_content(path, content, FILE_MODE) and (uid is None or path.stat().st_uid == uid)


def finish(state: State, directory: Path, *, check: bool) -> list[str]:
    """Record that rotations are finished, and remove the passwords of logins that are no more: what was done."""
    rotation = state.rotation()
    finished = rotation.finished()
    if rotation != finished and not check:
        for login in finished.retired:
            (directory / f"{PASSWORD}{login}").unlink(missing_ok=True)
        state.write_rotation(finished)
    return finish_steps(rotation)


def write(directory: Path, wanted: Mapping[str, bytes], owners: Mapping[str, int], *, shared: bool) -> None:
    """Write these files, each for its owner. Raises OSError."""
    own = owners.get(".")
    make_directory(directory, 0o711 if shared and own is None else 0o700, None if own is None else (own, own))
    for name, content in wanted.items():
        uid = owners.get(name)
        write_atomically(directory / name, content, FILE_MODE, None if uid is None else (uid, uid))


def ensure_secrets(options: Mapping[str, Any], *, check: bool) -> list[str]:
    """Have all of them: names of the files that were, or are to be, written. Raises OSError, ValueError."""
    directory = Path(options["directory"])
    state = State(Path(options["state_directory"])) if options["state_directory"] else None
    before = state.rotation() if state else Rotation()
    rotation, renewed = begin(directory, options, before)
    wanted = contents(directory, options, rotation, renewed)
    for name in set(wanted) & set(options["lasting"]):
        refuse_another(directory / name, wanted[name])
    alone = options["shared"] and os.geteuid() != 0
    owners = {} if alone else {rotation.name_of(name): int(uid) for name, uid in options["owners"].items()}
    stale = [name for name, content in wanted.items() if not is_kept(directory / name, content, owners.get(name))]
    if check:
        return stale
    # A generated one before it is recorded that there is one, a given one afterwards: whatever comes between, the next
    # run goes on with it.
    given = {rotation.name_of(name) for name in options["given"]}
    for names in ([name for name in stale if name not in given], [name for name in stale if name in given]):
        if names:
            write(directory, {name: wanted[name] for name in names}, owners, shared=options["shared"] and not alone)
        if state and rotation != before:
            state.write_rotation(rotation)
    return stale


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "given": {"type": "dict", "default": {}, "no_log": True},
            "generated": {"type": "list", "elements": "str", "default": []},
            "lasting": {"type": "list", "elements": "str", "default": []},
            "owners": {"type": "dict", "default": {}},
            "shared": {"type": "bool", "default": False},
            "state_directory": {"type": "path"},
            "certificates": {"type": "dict", "default": {}, "no_log": True},
            "rotate": {"type": "list", "elements": "str", "choices": list(KINDS), "default": []},
            "overlap_seconds": {"type": "int", "default": 300},
            "by": {"type": "str", "default": "somebody"},
            "finish": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options, check = module.params, module.check_mode
    if (options["rotate"] or options["finish"]) and not options["state_directory"]:
        module.fail_json(msg="state_directory is needed for rotate and finish")
    try:
        stale = ensure_secrets(options, check=check)
        steps: list[str] = []
        if options["finish"]:
            steps = finish(State(Path(options["state_directory"])), Path(options["directory"]), check=check)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    told = [*(f"{Path(options['directory']) / name}: a new secret" for name in stale), *steps]
    module.exit_json(
        changed=bool(told),
        written=stale,
        steps=steps,
        diff={"before": "", "after": "".join(f"{line}\n" for line in told)},
    )


if __name__ == "__main__":
    main()
