"""What there is to ask with: presets, schemas."""
