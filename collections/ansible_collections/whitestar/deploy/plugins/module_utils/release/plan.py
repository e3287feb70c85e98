# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image that a plan names: another one is refused before it is built."""

from __future__ import annotations

PLANNED_OPTION = {"type": "str", "default": ""}


def why_not(identity: str, planned: str) -> str:
    """Why an image of this identity may not be built, empty if it may. Without a plan, ``planned`` is empty."""
    if planned in ("", identity):
        return ""
    return (
        f"titanic_plan: the source has changed since the plan was made, image {identity} instead of {planned}. "
        "Nothing was built. Put the source back as it was, or write a new plan."
    )
