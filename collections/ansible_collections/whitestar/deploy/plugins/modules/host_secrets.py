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
    for and not given. A secret that was generated once stays.
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
"""

import os
import re
import secrets
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    has_content,
    make_directory,
    write_atomically,
)

FILE_MODE = 0o600


def contents(directory: Path, given: dict[str, object], generated: list[str]) -> dict[str, bytes]:
    """What each file must hold, by name. Raises ValueError for a name that is no plain file name, or an empty value."""
    wanted: dict[str, bytes] = {}
    for name in [*given, *generated]:
        path = directory / name
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(
                f"titanic_secrets_values: '{name}' is no name of a secret. Use lower-case letters, digits and _."
            )
        if name in given:
            value = given[name]
            if not isinstance(value, str) or not value:
                raise ValueError(f"titanic_secrets_values: '{name}' must be a text that is not empty. Quote numbers.")
            wanted[name] = value.encode()
        elif path.is_file() and path.stat().st_size:
            wanted[name] = path.read_bytes()
        else:
            wanted[name] = secrets.token_urlsafe(32).encode()
    return wanted


def refuse_another(path: Path, content: bytes) -> None:
    """Raise ValueError if a file that is there has another value, which is not shown."""
    if path.is_file() and path.read_bytes().strip() not in (b"", content.strip()):
        raise ValueError(
            f"titanic_secrets_values: {path.name} is not the one in {path}, and what is encrypted with that would be "
            f"lost. Give that one, or move the file away first."
        )


def kept(path: Path, content: bytes, uid: int | None) -> bool:
    """Whether the file is as it should be, its owner included if one is asked for."""
    return has_content(path, content, FILE_MODE) and (uid is None or path.stat().st_uid == uid)


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
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    try:
        wanted = contents(directory, module.params["given"], module.params["generated"])
        for name in set(wanted) & set(module.params["lasting"]):
            refuse_another(directory / name, wanted[name])
        shared = module.params["shared"]
        alone = shared and os.geteuid() != 0
        owners = {} if alone else {name: int(uid) for name, uid in module.params["owners"].items()}
        stale = [name for name, content in wanted.items() if not kept(directory / name, content, owners.get(name))]
        if stale and not module.check_mode:
            own = owners.get(".")
            entered = shared and not alone and own is None
            make_directory(directory, 0o711 if entered else 0o700, None if own is None else (own, own))
            for name in stale:
                uid = owners.get(name)
                write_atomically(directory / name, wanted[name], FILE_MODE, None if uid is None else (uid, uid))
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(stale),
        written=stale,
        diff={"before": "", "after": "".join(f"{directory / name}: a new secret\n" for name in stale)},
    )


if __name__ == "__main__":
    main()
