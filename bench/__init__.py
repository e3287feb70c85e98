"""Measures the service beside two peers, in one run on one PostgreSQL."""

import sys
from pathlib import Path

# Whole sites are deployed by helpers of the tests, which take the collection from this checkout.
sys.path.append(str(Path(__file__).resolve().parent.parent / "collections"))
