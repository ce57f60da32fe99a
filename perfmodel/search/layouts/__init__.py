"""Which layouts a number of GPUs may have, and which of them are best."""
