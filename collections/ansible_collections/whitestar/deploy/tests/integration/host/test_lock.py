# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of many runs that begin at the same moment one gets the lock."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from ansible_collections.whitestar.deploy.tests.helpers import module_environment


def test_of_ten_at_once_one_wins(tmp_path: Path) -> None:
    code = """
        import os, socket, sys
        from pathlib import Path
        from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import Lock, LockedError, Owner
        from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Process
        me = Process.of(os.getpid())
        sys.stdin.read()
        try:
            Lock(Path(sys.argv[1])).acquire(Owner(socket.gethostname(), "x", me.pid, me.started), 60)
            print("won", flush=True)
        except LockedError:
            print("refused", flush=True)
        sys.stdin.read()
        os.read(int(sys.argv[2]), 1)
    """
    # The starter's pipe lets all go at once; the second one keeps the winner alive until all have tried.
    start_read, start_write = os.pipe()
    end_read, end_write = os.pipe()
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "lock.json"), str(end_read)],
            stdin=start_read,
            stdout=subprocess.PIPE,
            pass_fds=[end_read],
            env=module_environment(),
            text=True,
        )
        for _ in range(10)
    ]
    os.close(start_read)
    time.sleep(0.5)
    os.close(start_write)
    said = [run.stdout.readline().strip() for run in runs if run.stdout]
    os.close(end_read)
    os.close(end_write)
    for run in runs:
        run.communicate(timeout=60)
    assert sorted(said) == ["refused"] * 9 + ["won"]
