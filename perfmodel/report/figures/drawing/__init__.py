"""How all figures look: style, colours, lettering, and what several of them share."""
