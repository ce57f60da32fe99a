"""The commands: each parses, calls and prints; `cli.py` puts them together."""
