"""What is described: models, hardware, layouts, software stacks and runs, as frozen values that only validate."""
