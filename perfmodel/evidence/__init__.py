"""What speaks for the predictions: measured runs held against them."""
