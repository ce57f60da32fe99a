"""Mutation testing: equations changed one at a time, and whether tests notice."""
