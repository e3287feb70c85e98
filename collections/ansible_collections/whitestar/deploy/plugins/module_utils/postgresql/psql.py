# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL for PostgreSQL's own ``psql``: how it is called as the administrator, and how values stand in statements."""

from __future__ import annotations

import json
from typing import Protocol

ADMINISTRATOR = "postgres"
# A client that prints values alone and stops at the first error.
PSQL = ("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", ADMINISTRATOR)


class Server(Protocol):
    """A server that can be asked and told things as its administrator."""

    def query(self, sql: str, database: str = "postgres") -> object:
        """The JSON value that the one statement ``sql`` returns."""
        return json.loads(self.run_sql(sql, database) or "null")

    def run_sql(self, sql: str, database: str = "postgres") -> str:
        """Run ``sql``, which must reach it by standard input."""


def literal(text: str) -> str:
    """``text`` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """``name`` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
