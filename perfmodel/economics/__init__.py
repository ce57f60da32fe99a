"""What a run costs: calendar days, dollars, energy, and the time that failures take."""
