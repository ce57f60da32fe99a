"""How uncertain numbers are, and what runs say of them."""
