# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules that ask a reverse proxy say of HTTPS."""

from __future__ import annotations


class ModuleDocFragment:
    """The option ``tls``, as :data:`TLS_OPTION` in module_utils/common/http.py reads it."""

    DOCUMENTATION = r"""
options:
  tls:
    description: How HTTPS is asked for. Plain HTTP is, without it.
    type: dict
    suboptions:
      hostname: {description: Name that the certificate must be for., type: str, required: true}
      authority:
        description: >-
          The certificates to trust, as PEM, or a file on the target with them. Without it those that the system trusts.
        type: str
"""
