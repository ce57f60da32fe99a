"""What was measured, beside what was predicted, as text."""
