"""Tables of measured runs and of layouts that fitted, read as specs."""
