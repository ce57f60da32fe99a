"""Models: sizes, kinds of layers, parts of layers, and what goes together."""
