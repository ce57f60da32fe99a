"""Counts to seconds, with coefficients that are data. Approximate by nature; every equation broadcasts."""
