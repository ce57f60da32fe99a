"""What follows from the dimensions of a model alone: its parameters, and the model FLOPs of a token in training."""

from __future__ import annotations

from typing import Final

import numpy as np

from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.parameters import active_parameter_count, parameter_count
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.models.model import TransformerModel

USUAL_LENGTH: Final = 4096  # tokens of a sequence, where a model has as many positions


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCounts:
    """Counts of a model; FLOPs are those of sequences of `sequence_length` tokens, forward and backward."""

    parameters: float
    active_parameters: float  # that a token passes
    sequence_length: int
    model_flop_per_token: float
    model_flop_per_token_causal: float


def model_counts(model: TransformerModel) -> ModelCounts:
    """The counts of a model, with sequences of 4,096 tokens, or of as many as it has positions.

    >>> from perfmodel.exchange.presets import model_preset
    >>> found = model_counts(model_preset("deepseek-v3"))
    >>> round(found.parameters / 1e9), round(found.active_parameters / 1e9)  # arXiv:2412.19437: 671B, of which 37B a token
    (671, 38)
    """
    length = USUAL_LENGTH if model.max_positions is None else min(USUAL_LENGTH, int(np.min(model.max_positions)))
    full, causal = (float(model_flop_per_token(model, length, convention=each)) for each in ("full", "causal"))
    return ModelCounts(
        parameters=float(parameter_count(model).total),
        active_parameters=float(active_parameter_count(model)),
        sequence_length=length,
        model_flop_per_token=full,
        model_flop_per_token_causal=causal,
    )
