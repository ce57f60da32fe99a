"""What logs of training software have in common: lines, steps, records."""
