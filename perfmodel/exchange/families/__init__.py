"""Which parts the models of a family have: the rows of data/model_families.yaml, read against a config.json."""
