"""Measured fine-tunings beside their forecasts."""
