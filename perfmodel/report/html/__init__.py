"""Results as one page that opens from disk."""
