"""Launch files of training software, written from runs: one module a format."""
