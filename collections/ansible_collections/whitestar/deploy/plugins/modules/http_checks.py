#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a reverse proxy for each promise that can be asked over HTTP."""

from __future__ import annotations

DOCUMENTATION = r"""
module: http_checks
short_description: Ask a reverse proxy whether it keeps its promises
description:
  - Sends one GET for each promise and compares status, headers and JSON body. All broken promises are reported at once.
  - A promise that is broken is asked for again for O(seconds). A reverse proxy may not have seen yet that a release is
    ready, or that the one before is gone, and one whose certificate is not valid may still be getting it.
  - A reverse proxy in maintenance is asked nothing else.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: whitestar.deploy.tls
options:
  address: {description: "Where to ask, C(host:port) or C(unix:/path).", type: str, required: true}
  host: {description: "Name that the reverse proxy is asked by, where that is not its address.", type: str}
  promises:
    description: What is promised.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: What is promised in words., type: str, required: true}
      path: {description: What to ask for., type: str, required: true}
      request_headers: {description: Headers to send., type: dict, default: {}}
      status: {description: The status that is promised., type: int, default: 200}
      headers: {description: Headers and the text that each must start with., type: dict, default: {}}
      json: {description: Keys and values that the JSON object must have., type: dict, default: {}}
      seconds: {description: "How long the answer may take, in seconds; five if not given.", type: float}
      or_problem: {description: Type of a problem document that keeps the promise too., type: str}
  seconds:
    description: How long broken promises are asked for again, in seconds, for all of them together.
    type: float
    default: 10
attributes:
  check_mode: {description: "Nothing is asked, since the run may not have made it yet.", support: full}
  diff_mode: {description: There is nothing to compare., support: none}
"""

EXAMPLES = r"""
- name: Verify each promise
  whitestar.deploy.http_checks:
    address: 127.0.0.1:5000
    promises:
      - {name: The API is ready, path: /readyz}
"""

RETURN = r"""
kept: {description: The promises that were kept., returned: success, type: list, elements: str}
maintenance:
  description: The message of a reverse proxy in maintenance; empty otherwise.
  returned: success
  type: str
check_mode: {description: "Whether nothing was asked, since this is check mode.", returned: in check mode, type: bool}
items:
  description: Number of items in the JSON array of each promise that has one, by its path.
  returned: success
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import TLS_OPTION
from ansible_collections.whitestar.deploy.plugins.module_utils.release.http_checks import (
    ReverseProxy,
    in_words,
    maintenance,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "seconds": {"type": "float", "default": 10},
            "tls": TLS_OPTION,
            "host": {"type": "str"},
            "promises": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "path": {"type": "str", "required": True},
                    "request_headers": {"type": "dict", "default": {}},
                    "status": {"type": "int", "default": 200},
                    "headers": {"type": "dict", "default": {}},
                    "json": {"type": "dict", "default": {}},
                    "seconds": {"type": "float"},
                    "or_problem": {"type": "str"},
                },
            },
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, kept=[], items={}, maintenance="", check_mode=True)
    door = ReverseProxy.of(module.params)
    kept, failures, items = [], [], {}
    deadline = time.monotonic() + module.params["seconds"]
    for promise in module.params["promises"]:
        answer, problem = door.check(promise)
        # A reverse proxy may yet have to see that a release is ready, or gone, and a certificate may yet have to come.
        while problem and not (answer and maintenance(answer)) and time.monotonic() < deadline:
            time.sleep(0.2)
            answer, problem = door.check(promise)
        if answer and (message := maintenance(answer)):
            module.exit_json(changed=False, kept=[], items={}, maintenance=message)
        if answer and isinstance(body := answer.json(), list):
            items[promise["path"]] = len(body)
        if problem:
            failures.append(in_words(promise, problem))
        else:
            kept.append(promise["name"])
    if failures:
        module.fail_json(msg="promises that are not kept:\n" + "\n".join(failures), broken=failures, kept=kept)
    module.exit_json(changed=False, kept=kept, items=items, maintenance="")


if __name__ == "__main__":
    main()
