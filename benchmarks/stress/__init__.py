"""Attacks a server from outside and prints a table of what must hold: `make stress`."""
