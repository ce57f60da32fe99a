"""Commands about what was measured: on this machine, or by others."""
