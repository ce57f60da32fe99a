"""Parts of a layer and of the vocabulary: what each declares, and the operators that it is."""
