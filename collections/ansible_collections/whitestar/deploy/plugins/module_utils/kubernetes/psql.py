# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL in a pod."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import PSQL, Server


@dataclass(frozen=True)
class PodServer(Server):
    """PostgreSQL in a pod, spoken to through its own ``psql`` and socket."""

    cluster: KubernetesClient
    pod: str
    container: str

    def run_sql(self, sql: str, database: str = "postgres") -> str:
        words = ["exec", "--stdin", self.pod, f"--container={self.container}", "--", *PSQL, "-d", database, "-f", "-"]
        return self.cluster.run(*words, standard_input=sql).strip()
