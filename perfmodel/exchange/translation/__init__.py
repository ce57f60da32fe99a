"""What importers share: tables of other software's words, shell scripts as text, and how a run is made of what was read."""
