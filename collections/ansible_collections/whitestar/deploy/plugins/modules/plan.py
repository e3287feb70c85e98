#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Write down what a run would do, or hold a run to what was written down
description:
  - With O(state=noted) gives back hashes of the settings of this run, for O(settings) later.
  - With O(state=written) adds this host's part to a plan, a JSON file of mode 0600 on the controller. It holds what
    would be done in words, O(settings), and what there is on the target.
  - With O(state=compared) fails, naming each difference, unless settings and target are what they were when the plan
    was made.
  - Runs on the controller and touches no target. Secret settings are in the plan as salted scrypt hashes (RFC 7914).
version_added: 1.0.0
author: The Titanic team (@whitestar)
options:
  state:
    description: Whether to take note of the settings, to write, or to compare.
    type: str
    choices: [noted, written, compared]
    required: true
  file:
    description: The plan. Needed to write and to compare; when taking note, a file that is no plan is refused.
    type: path
  reality:
    description: What there is on the target, as M(whitestar.deploy.host_lock) found it. Not needed to take note.
    type: dict
  settings: {description: What O(state=noted) gave back. Needed to write., type: dict}
  stages: {description: "What each stage of a run in check mode gave back, by its name. Needed to write.", type: dict}
  run:
    description: >-
      The run, as the filter P(whitestar.deploy.run_identity#filter) gives it. Another run's plan is replaced.
    type: dict
attributes:
  check_mode:
    description: A plan is written in check mode too, since that is when there is one to write.
    support: none
  diff_mode: {description: There is nothing to compare., support: none}
"""

EXAMPLES = r"""
- name: Verify that the saved plan still applies
  whitestar.deploy.plan:
    state: compared
    file: titanic.plan.json
    reality: "{{ lock.reality }}"
"""

RETURN = r"""
settings:
  description: A hash of each setting by name, and the salt that they were made with.
  returned: when O(state=noted)
  type: dict
steps: {description: "What the plan does on this host, in words.", returned: otherwise, type: list, elements: str}
image: {description: Identity of the image that is planned., returned: otherwise, type: str}
"""
