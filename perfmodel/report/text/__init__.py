"""Results as tables and sentences for a terminal."""
