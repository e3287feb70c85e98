# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our own reverse proxy is known by its ports, also while it opens and closes connections."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.modules.host_lock import listening


def test_a_connection_that_closes_while_its_process_is_looked_at_hides_no_port(monkeypatch: Any) -> None:
    real = Path.readlink
    closed: list[Path] = []

    def readlink(link: Path) -> Path:
        if not closed:
            closed.append(link)
            raise FileNotFoundError(link)
        return real(link)

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] in listening(os.getpid())
        monkeypatch.setattr(Path, "readlink", readlink)
        assert server.getsockname()[1] in listening(os.getpid())
        assert closed
