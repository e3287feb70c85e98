"""Load clients that tests of the whole repository share."""
