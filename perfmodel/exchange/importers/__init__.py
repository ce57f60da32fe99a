"""Files of other software, read as specs: a module a format."""
