"""Which layouts: the space of legal ones, the search through it, and the plan it leads to."""
