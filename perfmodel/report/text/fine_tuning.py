"""How the answer about a fine-tuning looks: whether it fits, how fast it is, how long it takes, in one line."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from perfmodel.count.memory.fit import DOES_NOT_FIT, FITS, TIGHT
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.spec.tuning.fine_tuning import AS_THE_STACK, TRAININGS, FineTuning
from perfmodel.units import GIBIBYTE, HOURS_PER_DAY

STYLES: Final = {FITS: "green", TIGHT: "yellow", DOES_NOT_FIT: "bold red"}


def tuning_verdict(prediction: Prediction) -> Text:
    """Fits, needed of available memory, tokens/s with their 90 % interval, and hours where it is known of how many tokens."""
    (_, predicted), gpu = prediction.stages[-1], prediction.run.cluster.gpu
    needed, capacity = float(predicted.memory.total_bytes), float(gpu.memory_bytes)
    odds = f" ({100 * prediction.fit_probability:.0f} % that it fits)" if prediction.verdict == TIGHT else ""
    fits = f"{prediction.verdict.capitalize()}{odds}: {needed / GIBIBYTE:.1f} of {capacity / GIBIBYTE:.1f} GiB"
    return Text(f"{fits}; {speed_text(predicted)}{_length_text(prediction)}.", style=STYLES[prediction.verdict])


def tuning_words(tuning: FineTuning) -> list[str]:
    """What is trained and how, for the line that describes a run: qlora of nf4-dq weights, rank 16, adamw."""
    weights = "" if tuning.weights == AS_THE_STACK else f" of {tuning.weights} weights"
    rank = [f"rank {int(tuning.adapter_rank)}"] if tuning.has_adapters else []
    offload = [f"{' and '.join(tuning.offload)} offloaded"] if tuning.offload else []
    parts = [f"{' and '.join(each)} {how}" for each, how in _parts(tuning) if each]
    name = "full fine-tuning" if tuning.training == TRAININGS[0] else tuning.training
    return [f"{name}{weights}", *rank, *parts, tuning.optimizer, *offload]


def _parts(tuning: FineTuning) -> list[tuple[tuple[str, ...], str]]:
    return [(tuning.trained_parts, "trained"), (tuning.frozen_parts, "frozen")]


def speed_text(predicted: StagePrediction) -> str:
    """Tokens/s of all GPUs with their 90 % interval: 2,345 tokens/s (90 %: 2,011-2,702)."""
    low_s, high_s = (float(each) for each in predicted.iteration_time_interval_s)
    tokens = float(predicted.layout.tokens_per_iteration)
    return f"{tokens / float(predicted.iteration_time_s):,.0f} tokens/s (90 %: {tokens / high_s:,.0f}-{tokens / low_s:,.0f})"


def _length_text(prediction: Prediction) -> str:
    days = prediction.total_training_days
    if days is None:
        return ""
    hours, low, high = (HOURS_PER_DAY * float(each) for each in (days.median, days.low, days.high))
    return f"; {hours:,.1f} hours ({low:,.1f}-{high:,.1f})"
