"""The commands, one module each: parse, call, print. `app.py` makes one program of them; the rooms hold groups of them."""
