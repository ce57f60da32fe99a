"""Decide: what if, sweep, search, and where the time goes."""
