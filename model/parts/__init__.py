"""Parts of a layer and of the vocabulary, each linear with how ranks share it."""
