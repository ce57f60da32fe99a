"""Measurements: fits of the shipped coefficients, and the speed and memory bars of the tool itself."""
