# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option of modules that work on local and on Compose targets alike."""

from __future__ import annotations


class ModuleDocFragment:
    """Merged into DOCUMENTATION where a module names it."""

    DOCUMENTATION = r"""
options:
  engine:
    description: The Docker engine that the releases run on. Without it they are processes.
    type: dict
    suboptions:
      socket: {description: Path of the engine's socket., type: path, required: true}
      program: {description: The docker client., type: path, required: true}
      project: {description: Name of the Compose project., type: str, required: true}
      configuration:
        description: The client's directory with its plugins, where it is not the usual one.
        type: path
      planned:
        description: Whether the engine is yet to be installed, which check mode meets. Nothing is on it then.
        type: bool
        default: false
"""
