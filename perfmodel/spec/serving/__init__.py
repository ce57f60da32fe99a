"""What a server is: its setup, engine, kernels, formats of weights and caches, loads, and what is known of its errors."""
