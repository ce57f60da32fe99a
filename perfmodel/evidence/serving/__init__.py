"""Measured servers beside their forecasts."""
