# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that run SQL for their administrator where they are: in a pod, in a container."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import Engine
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import Cluster
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import PSQL


@dataclass(frozen=True)
class PodServer:
    """PostgreSQL in a pod, spoken to through its own ``psql`` and socket."""

    cluster: Cluster
    pod: str
    container: str

    def ask(self, sql: str, database: str = "postgres") -> object:
        """The JSON value that the one statement ``sql`` returns."""
        return json.loads(self.run_sql(sql, database) or "null")

    def run_sql(self, sql: str, database: str = "postgres") -> str:
        """Run ``sql``, which reaches it by standard input."""
        words = ["exec", "--stdin", self.pod, f"--container={self.container}", "--", *PSQL, "-d", database, "-f", "-"]
        return self.cluster.run(*words, standard_input=sql).strip()


@dataclass(frozen=True)
class ContainerServer:
    """PostgreSQL in a container, spoken to through its own ``psql`` and socket."""

    engine: Engine
    container: str

    def ask(self, sql: str, database: str = "postgres") -> object:
        """The JSON value that the one statement ``sql`` returns."""
        return json.loads(self.run_sql(sql, database) or "null")

    def run_sql(self, sql: str, database: str = "postgres") -> str:
        """Run ``sql``, which reaches it by standard input."""
        words = ["exec", "--interactive", self.container, *PSQL, "-d", database, "-f", "-"]
        return self.engine.run(*words, standard_input=sql).strip()
