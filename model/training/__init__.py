"""What trains a model: batches, buffers, the optimizer, checkpoints, ranks."""
