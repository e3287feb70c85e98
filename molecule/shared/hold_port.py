"""Listens on a port of the loopback address, as another program would; arguments: the port, for how many seconds."""

from __future__ import annotations

import socket
import sys
import time


def main() -> None:
    """Listen and wait."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
        time.sleep(float(sys.argv[2]))


if __name__ == "__main__":
    main()
