"""How pipeline stages share a model: its pieces, their schedule, their messages."""
