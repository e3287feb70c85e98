"""The counts that all workers share: memory made by their master, which imports this before it forks them.

It imports nothing that gevent replaces in the workers.
"""

from __future__ import annotations

import mmap
import struct

SLOTS = 65536
SLOT = struct.Struct("=II")  # minute, requests in it
# Two workers that add at the same moment may lose one request of the count, which a limit by the minute can bear.
COUNTS = mmap.mmap(-1, SLOTS * SLOT.size)
