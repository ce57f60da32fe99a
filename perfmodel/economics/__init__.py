"""What a run costs: days, dollars, energy, and what failures take."""
