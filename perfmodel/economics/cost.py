"""What a run costs in GPU-hours and dollars: on demand or reserved, at the price that the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Numeric

Stages: TypeAlias = Sequence[tuple[Numeric, Numeric]]  # GPUs and calendar days of each
HOURS_PER_DAY = 24.0


def dollars(*, gpus: Numeric, calendar_days: Numeric, terms: Economics) -> Numeric | None:
    """price * paid GPU-hours of a run of one stage; None without a price.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.presets import economics_preset
    >>> terms = replace(economics_preset("typical"), dollars_per_gpu_hour=2.5)
    >>> float(dollars(gpus=1000, calendar_days=10.0, terms=terms))
    600000.0
    """
    return ramp_dollars([(gpus, calendar_days)], terms=terms)


def ramp_dollars(stages: Stages, *, terms: Economics) -> Numeric | None:
    """price * paid GPU-hours of stages that follow one another; None without a price."""
    price = terms.dollars_per_gpu_hour
    return None if price is None else price * paid_gpu_hours(stages, terms=terms)


def gpu_hours(stages: Stages) -> Numeric:
    """sum of 24 * gpus * calendar days: those that are used, restarts and lost work included.

    >>> gpu_hours([(512, 1.0), (1024, 2.0)])
    61440.0
    """
    return sum(HOURS_PER_DAY * gpus * days for gpus, days in stages)


def paid_gpu_hours(stages: Stages, *, terms: Economics) -> Numeric:
    """On demand those that are used; reserved 24 * most GPUs * max(calendar days, reserved days).

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.presets import economics_preset
    >>> ramp, terms = [(512, 1.0), (1024, 2.0)], economics_preset("typical")
    >>> float(paid_gpu_hours(ramp, terms=terms)), float(paid_gpu_hours(ramp, terms=replace(terms, billing="reserved")))
    (61440.0, 73728.0)
    """
    if terms.billing == "on_demand":
        return gpu_hours(stages)
    most: Numeric = 0.0
    days: Numeric = 0.0
    for gpus, stage_days in stages:
        most, days = np.maximum(most, gpus), days + stage_days
    return HOURS_PER_DAY * most * (days if terms.reserved_days is None else np.maximum(days, terms.reserved_days))
