"""MEASURE: from tables of measured kernels to the coefficients that the equations use."""
