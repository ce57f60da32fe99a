"""The names of the passes of an iteration: the words that a prediction and a profiled step share."""

from typing import Final

FORWARD: Final = "forward"
DATA_GRADIENT: Final = "data_gradient"
WEIGHT_GRADIENT: Final = "weight_gradient"
RECOMPUTE: Final = "recompute"
OPTIMIZER: Final = "optimizer"
