# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules that switch to a release say of the reverse proxy that they ask afterwards."""

from __future__ import annotations


class ModuleDocFragment:
    """The option ``reverse_proxy``, as :data:`REVERSE_PROXY_OPTION` in module_utils/release/http_checks.py reads it."""

    DOCUMENTATION = r"""
options:
  reverse_proxy:
    description: >-
      Where the service is asked. What it answered as promised while the release before served it must answer when this
      one does; otherwise the release before is let in again. Nothing is asked if not set.
    type: dict
    suboptions:
      address: {description: "Address and port.", type: str, required: true}
      host: {description: "Name that it is asked by, where that is not its address.", type: str}
      tls:
        description: How it is asked where it has a certificate.
        type: dict
        suboptions:
          hostname: {description: The name that the certificate must have., type: str, required: true}
          authority: {description: "Certificates to trust, as PEM or a file; the system's if not set.", type: str}
"""
