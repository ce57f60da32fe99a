"""Fits one step of a gated delta rule and of the convolution before it, of some sequences each, from the package's tables.

The bytes are those that a forecast counts of a step (count/serving/mixers.py), the law that of its small kernels: a start, and
a share of the memory rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few
from perfmodel.count.operators import MemoryBound
from perfmodel.count.serving.mixers import mixer_operators
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.light_dataclass import replace
from perfmodel.spec.models.layer_parts import described
from perfmodel.spec.serving.profile import StreamedKernel
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.serving.forward_pass import small_kernel_time_s

MODEL: Final = "qwen3-next-80b-a3b"  # its sizes of heads, which the tables have too
MIXER: Final = "gated_delta"
MOST_SEQUENCES: Final = 512
HEADS: Final = ["key_heads", "value_heads"]
FREE: Final = {
    "fixed_s": Free(start=3e-6, low=1e-7, high=3e-5),
    "efficiency": Free(start=0.6, low=0.05, high=1.2),
}


def step_bytes(setup: ServingSetup, rows: pd.DataFrame, step: str) -> Floats:
    """What each row's kernel moves [bytes], by its sequences and heads."""
    moved = np.zeros(len(rows))
    kind = next(kind for kind in setup.model.kinds.values() if kind.attention == MIXER)
    for _, alike in rows.groupby(HEADS):
        heads = {name: float(alike[name].iloc[0]) for name in HEADS}
        delta = replace(described(setup.model.delta, "delta"), **heads)
        server = replace(setup, model=replace(setup.model, delta=delta))
        sequences = alike.sequences.to_numpy(dtype=float)
        operators = mixer_operators(server, kind, "step", sequences=sequences, prompts=0.0, prompt_tokens=0.0)
        moved[alike.index] = next(
            each.moved_bytes for each in operators if isinstance(each, MemoryBound) and each.kernel == step
        )
    return moved


def fit_step(gpu: str, rows: pd.DataFrame, step: str) -> Fit:
    """The law of one kernel, each shape of heads held out once."""
    setup = serving_setup(MODEL, gpu=gpu, engine="sglang")
    rows = rows[rows.sequences <= MOST_SEQUENCES].reset_index(drop=True)
    kernel = MemoryBound(name=step, moved_bytes=step_bytes(setup, rows, step), kernel=step)

    def equation(values: Mapping[str, Any]) -> Floats:
        profile = replace(setup.profile, small_kernels={step: StreamedKernel(**values)})
        return np.asarray(small_kernel_time_s(kernel, replace(setup, profile=profile)))

    heads = rows.groupby(HEADS).ngroup().to_numpy()
    return fit_of_few(equation, FREE, rows.seconds.to_numpy(dtype=float), heads)
