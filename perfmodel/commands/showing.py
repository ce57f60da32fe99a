"""What a prediction looks like: `timeline`."""
