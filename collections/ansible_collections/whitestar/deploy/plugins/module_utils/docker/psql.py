# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL in a container."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import PSQL, Server


@dataclass(frozen=True)
class ContainerServer(Server):
    """PostgreSQL in a container, spoken to through its own ``psql`` and socket."""

    engine: DockerClient
    container: str

    def run_sql(self, sql: str, database: str = "postgres") -> str:
        words = ["exec", "--interactive", self.container, *PSQL, "-d", database, "-f", "-"]
        return self.engine.run(*words, standard_input=sql).strip()

    def stream_sql(self, sql: str, database: str) -> Iterator[bytes]:
        """The lines that ``sql`` prints, however many. Raises EngineError at the end if it failed."""
        words = ["exec", "--interactive", self.container, *PSQL, "-d", database, "-f", "-"]
        return self.engine.stream(words, sql.encode())
