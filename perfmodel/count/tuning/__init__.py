"""What a fine-tuning counts: parameters that are trained, the step, what travels to the host."""
