"""Kernels and collectives of other laboratories against the profiles, one scalar a table."""
