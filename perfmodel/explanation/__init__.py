"""Why an iteration takes as long as it does: waterfall, sensitivities, moves, terms, roofline."""
