# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL reaches a server in a pod or a container by standard input, where no list of processes shows it."""

from __future__ import annotations

from typing import Any, cast

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.psql import ContainerServer
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.psql import PodServer
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import Server


class Client:
    """In the place of the engine's and the cluster's."""

    words: tuple[str, ...] = ()
    read = ""

    def run(self, *words: str, standard_input: str = "") -> str:
        self.words, self.read = words, standard_input
        return '{"rows": 2}\n'


CLIENT = Client()


@pytest.mark.parametrize(
    "server", [PodServer(cast("Any", CLIENT), "pod", "postgresql"), ContainerServer(cast("Any", CLIENT), "database")]
)
def test_a_statement_is_read_from_standard_input(server: Server) -> None:
    assert server.query("SELECT 'secret'", "people") == {"rows": 2}
    assert CLIENT.read == "SELECT 'secret'"
    assert CLIENT.words[-4:] == ("-d", "people", "-f", "-")
    assert "secret" not in " ".join(CLIENT.words)
