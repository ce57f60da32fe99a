"""Commands that choose between runs: plans, sweeps, variations."""
