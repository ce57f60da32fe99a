"""GPUs, links, clusters, and the coefficients of their kernels."""
