"""Flags of Megatron-LM, read and written."""
