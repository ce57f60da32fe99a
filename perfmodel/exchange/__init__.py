"""Files in and out: presets, run files, tables of published runs, other tools' configurations."""
