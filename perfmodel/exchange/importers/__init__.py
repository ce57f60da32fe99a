"""Files of other software, read as specs: a module for each format, found by its content (registry.py)."""
