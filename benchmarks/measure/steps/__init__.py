"""Real training steps."""
