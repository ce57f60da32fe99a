"""The families of models that a config.json may describe."""
