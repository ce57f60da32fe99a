"""What of a model is trained, by which optimizer, and what cannot be."""
