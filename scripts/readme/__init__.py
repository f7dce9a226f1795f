"""Keeps README.md true: its curl commands are run against the bundled checkpoint, and their answers written in."""
