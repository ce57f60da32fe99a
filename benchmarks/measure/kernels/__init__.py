"""Kernels and collectives, one by one."""
