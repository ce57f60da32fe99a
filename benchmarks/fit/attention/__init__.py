"""Attention kernels: from their measured times to the coefficients of their laws."""
