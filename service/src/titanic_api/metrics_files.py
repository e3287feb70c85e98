"""Files of metrics that workers share, which cannot end a worker: what is written to has been reserved before.

prometheus_client maps sparse files into memory. Where the disk is full the first write to a new page of one is answered
with SIGBUS, which ends the worker in the middle of a request. Here a file is reserved as a whole when it is made or
grows. A worker that gets no file, or no more of it, counts what it can in memory, where nobody else reads it.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
from pathlib import Path
from typing import Any

from prometheus_client import mmap_dict, values

log = logging.getLogger(__name__)

# Some 1,000 series; one file takes all counters of a worker. It grows by doubling.
RESERVED_BYTES = 1 << 18
# A value and its time, as prometheus_client writes them.
VALUE_BYTES = 16


class ReservedFile(mmap_dict.MmapedDict):
    """A file of metrics, reserved on the disk; in memory alone where that cannot be."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        place = filename
        try:
            with open(filename, "ab") as file:  # noqa: PTH123 (as prometheus_client opens it again)
                os.posix_fallocate(file.fileno(), 0, RESERVED_BYTES)
        except OSError as error:
            log.warning("metrics of this worker are counted in memory alone: %s: %s", filename, error.strerror)
            with contextlib.suppress(OSError):
                Path(filename).unlink()  # which has no beginning that could be read
            self._memory = os.memfd_create("titanic-metrics")
            os.posix_fallocate(self._memory, 0, RESERVED_BYTES)
            place = f"/proc/self/fd/{self._memory}"
        super().__init__(place, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        """Make room for a value; where there is none it shares one that nobody reads."""
        # Its length, itself and what aligns it, and the value; the last one of the file is for what finds no room.
        needed = len(key.encode()) + 3 * 8 + VALUE_BYTES
        if self._used + needed > self._capacity - VALUE_BYTES:
            try:
                os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
            except OSError as error:
                log.warning("a metric is not counted: %s: %s", self._fname, error.strerror)
                self._positions[key] = self._capacity - VALUE_BYTES
                return
            self._m.close()
            self._capacity *= 2
            self._m = mmap.mmap(self._f.fileno(), self._capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]


def reserve() -> None:
    """Have every file of metrics that this process and its workers make be one of these."""
    patched: Any = values
    patched.MmapedDict = ReservedFile
