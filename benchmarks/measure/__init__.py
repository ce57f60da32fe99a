"""What this machine does: kernels, collectives, training steps, and the calibration made of them."""
