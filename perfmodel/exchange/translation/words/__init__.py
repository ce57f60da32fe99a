"""Tables of the words of other software: flags and keys, and what each sets."""
