# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ansible does with a module that has no action plugin of its own, without sending it to this machine itself.

``meta/runtime.yml`` routes the modules of this collection here.
"""

from __future__ import annotations

from ansible.plugins.action.normal import ActionModule as Normal
from ansible_collections.whitestar.deploy.plugins.plugin_utils.in_process import ForkedModule


class ActionModule(ForkedModule, Normal):
    """See the module's documentation."""
