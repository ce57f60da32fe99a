"""What if: scenarios, sweeps, scaling, maps of layouts."""
