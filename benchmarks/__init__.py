"""Measurements: the kernels, collectives and steps of a machine, fits of coefficients, and the bars of the tool itself."""
