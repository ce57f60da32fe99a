"""Fits of kernels that serving engines have of their own: fused experts, and steps of mixers that keep a state."""
