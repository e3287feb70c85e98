"""The Titanic API: the passengers of the Titanic over HTTP, kept in PostgreSQL."""

__version__ = "1.0.0"
