"""Lets `python -m tests.load` run the open-loop client."""

from .open_loop import main

raise SystemExit(main())
