"""Which layouts: the space of those that may exist, the search through it, and the plan that it leads to."""
