"""What every file and setting that people write goes through: documents, key paths, their words and slips."""
