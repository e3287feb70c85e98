"""Lets `python -m tests.end_to_end.load` run the open-loop client."""

from .open_loop import main

raise SystemExit(main())
