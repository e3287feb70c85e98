"""Counters that all workers share: memory made by their master, which imports this before it forks them.

Or a file, which instances on one host share. It imports nothing that gevent replaces in the workers.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from pathlib import Path

COUNTERS = 65536
COUNTER = struct.Struct("=II")  # minute, requests in it
# Two workers that add at the same moment may lose one request of the count, which a limit by the minute can bear.
SHARED_MEMORY = mmap.mmap(-1, COUNTERS * COUNTER.size)


def shared_counters(path: Path | None) -> mmap.mmap:
    """Those of a file, which is made if it is missing; those of the master without one, or if it cannot be had."""
    if path is None:
        return SHARED_MEMORY
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # All of it is there before it is touched: a full disk is an error here, and a signal that kills then.
            os.posix_fallocate(handle, 0, len(SHARED_MEMORY))
            return mmap.mmap(handle, len(SHARED_MEMORY))
        finally:
            os.close(handle)
    except OSError as error:
        logging.getLogger(__name__).warning("requests are counted by this instance alone: %s: %s", path, error.strerror)
        return SHARED_MEMORY
