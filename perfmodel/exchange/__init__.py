"""Files in and out: run files and presets, tables of measured runs, what people type, files of other software."""
