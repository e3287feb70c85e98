"""Runs a command and prints its exit code, its output and the processor time it took, in seconds, as JSON."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

LONGEST_SECONDS = 500


def main() -> None:
    """The command is the arguments."""
    done = subprocess.run(
        sys.argv[1:],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"code": done.returncode, "output": done.stdout, "seconds": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main()
