"""Records of kernels, steps and profiles, beside their forecasts."""
