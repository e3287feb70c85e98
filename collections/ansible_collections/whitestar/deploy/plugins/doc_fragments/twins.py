# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that a module for hosts and its twin for clusters share."""

from __future__ import annotations


class ModuleDocFragment:
    """Each as module_utils/release/options.py reads it; ``target`` is for those that work in a state directory.

    ``database`` is as module_utils/postgresql/roles.py reads it, of the modules that read passwords from files.
    """

    TARGET = r"""
options:
  state_directory: {description: The state directory of the target., type: path, required: true}
"""

    LOCK = r"""
options:
  state: {description: Whether the run is to have the lock., type: str, choices: [present, absent], required: true}
  owner:
    description: The run that asks, as the filter P(whitestar.deploy.run_identity#filter) gives it.
    type: dict
    required: true
  lease_seconds:
    description: After this many seconds the lock of an owner on another machine may be taken over.
    type: int
    default: 3600
  deploys:
    description: Whether the run may start a release, and so needs what one rests on, such as a port and disk space.
    type: bool
    default: true
  continues:
    description: Whether the run goes on from what another has made, and is refused where nothing has been deployed.
    type: bool
    default: false
  needs_running:
    description: Whether the run can do nothing with a deployment that is stopped, and so refuses it.
    type: bool
    default: false
  looks: {description: Whether to give back RV(reality)., type: bool, default: false}
"""

    LIFECYCLE = r"""
options:
  state:
    description: Whether to report, to stop, to start or to remove.
    type: str
    choices: [reported, stopped, started, absent]
    default: reported
  by: {description: Who stops it., type: str, default: somebody}
  ready_seconds:
    description: How long the release, on a cluster each pod of it, may take to become ready when started, in seconds.
    type: float
    default: 30
  address: {description: Where the reverse proxy listens (C(host:port))., type: str, required: true}
  probes:
    description: >-
      Paths that the reverse proxy is asked at: C(ready) answers 200 once the release is, C(rows) says how many there
      are in C(X-Total-Count).
    type: dict
    required: true
  url: {description: "What users call it, for the report; made of O(address) if not given.", type: str}
"""

    MAINTENANCE = r"""
options:
  enabled: {description: Whether there is maintenance., type: bool, required: true}
  message: {description: "What users are told, one line.", type: str, required: true}
  retry_seconds: {description: After how many seconds clients are asked to try again., type: int, default: 60}
  by: {description: Who runs this., type: str, required: true}
"""

    RELEASE = r"""
options:
  workload: {description: "The release, as the filter P(whitestar.deploy.workload#filter) builds it.", type: dict}
  restore:
    description: >-
      Instead of a new release, the number of a ledger entry whose release is to serve again, as
      M(whitestar.deploy.host_rollback_target) or M(whitestar.deploy.kubernetes_rollback_target) chose it.
    type: int
  by: {description: "Who runs this, for the ledger.", type: str, required: true}
  why: {description: "Why, for the ledger.", type: str, required: true}
  ready_seconds:
    description: How long a release, on a cluster each pod of it, may take to become ready, in seconds.
    type: float
    default: 30
  analysis:
    description: >-
      How a release is watched after it has taken over. When it leaves a bound, the release before serves again; on a
      host that waits for it, drained.
    type: dict
    default: {}
    suboptions:
      seconds: {description: "For how long, in seconds.", type: float, default: 0}
      error_share:
        description: Share of requests, from 0 to 1, that may be answered with 5xx.
        type: float
        default: 0.02
      mean_seconds: {description: "Mean time that an answer may take, in seconds.", type: float, default: 1}
  keep: {description: How many releases beside the one that serves are kept for a rollback., type: int, default: 5}
  reverse_proxy:
    description: >-
      Where the service is asked. What it answered as promised while the release before served it must answer when this
      one does; otherwise the release before gets requests again. Nothing is asked if not set.
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

    ROLLBACK_TARGET = r"""
options:
  release:
    description: A release id, or the start of one. The release before the one that serves if empty.
    type: str
    default: ""
"""

    DATABASE = r"""
options:
  database: {description: Name of the database., type: str, required: true}
  owner: {description: Role that owns the schema and migrates it., type: str, required: true}
  owner_password_file: {description: File on the target with its password., type: path, required: true}
  user: {description: Role that serves; it can read and write rows., type: str, required: true}
  user_password_file: {description: File on the target with its password., type: path, required: true}
  answer_file:
    description: >-
      What the last migration answered. The role that serves is given the C(grants) in it where it lacks them, and
      what it or everybody was given besides is taken back.
    type: path
  superuser_password_file: {description: File on the target with the administrator's password., type: path}
  state_directory:
    description: >-
      The state directory, which has what rotations have come to. The role that serves signs in itself without one.
    type: path
  finish:
    description: >-
      Whether every release has the login of the last rotation, so that the login of the one before is taken away and
      its sessions end. Nothing is started or configured then.
    type: bool
    default: false
"""
