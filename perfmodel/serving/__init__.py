"""Serving: what a forward pass takes becomes the times and the throughput that clients of a server see."""
