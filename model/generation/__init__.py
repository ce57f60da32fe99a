"""Answers of the reference model: prompts are read once, and tokens follow one by one over what was kept of those before."""
