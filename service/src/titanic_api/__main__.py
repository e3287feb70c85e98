"""Lets ``python -m titanic_api`` do what the ``titanic-api`` command does."""

import sys

from titanic_api.cli import main

if __name__ == "__main__":
    sys.exit(main())
