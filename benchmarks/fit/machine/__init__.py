"""The profile of one machine, fitted on its own records."""
