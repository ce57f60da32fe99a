"""What a GPU holds: states, activations, what runs again, and whether it fits."""
