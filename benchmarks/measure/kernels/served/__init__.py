"""Kernels of serving: which points a calibration measures of them, what runs, and the bytes that it moves."""
