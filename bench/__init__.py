"""Measures the service beside two peers, in one run on one PostgreSQL."""
