#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: validate_inputs
short_description: Refuse unknown tags, unknown variables and wrong values
description:
  - Compares the tags and the C(titanic_*) variables of this run with what the collection's roles document, and fails
    with one line for each problem, a suggestion where one is close. Runs on the controller and touches no target.
version_added: 1.0.0
author: The Titanic team (@whitestar)
options:
  tags: {description: The tags that the playbook has., type: list, elements: str, default: []}
  deploys:
    description:
      - Whether this run may start a release, so that it must make one too, and needs the collections that the provider
        stands on.
    type: bool
    default: true
  rotates:
    description: Whether this run rotates secrets, so that those that it names must be there.
    type: bool
    default: false
attributes:
  check_mode: {description: Nothing is ever changed., support: full}
  diff_mode: {description: There is nothing to compare., support: none}
"""

EXAMPLES = r"""
- name: Verify the inputs
  whitestar.deploy.validate_inputs:
    tags: [image, database, api]
"""

RETURN = r"""
problems: {description: "What is wrong, one sentence each.", returned: always, type: list, elements: str}
redirect_port:
  description: Port on which the settings have plain HTTP sent to HTTPS; 0 is none.
  returned: success
  type: int
required_resources:
  description: What the settings need of a cluster, as M(whitestar.deploy.kubernetes_lock) takes it.
  returned: success
  type: list
  elements: dict
volume:
  description: What the settings want the database's volumes on a cluster to be; empty where others run the database.
  returned: success
  type: dict
overlays: {description: What the settings lay over objects of a cluster., returned: success, type: list, elements: dict}
adopt:
  description: Whether the settings allow a namespace on a cluster that somebody else made.
  returned: success
  type: bool
"""
