"""What a run costs in GPU-hours and dollars: on demand or reserved, at the price that the user gives.

Arrays of any shape that broadcast; a ramp's GPU-hours and days are summed over its stages before they come here.
"""

from __future__ import annotations

import numpy as np

from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Numeric
from perfmodel.units import HOURS_PER_DAY


def dollars(*, gpu_hours: Numeric, gpus: Numeric, calendar_days: Numeric, terms: Economics) -> Numeric | None:
    """price * paid GPU-hours: the dollars of a run; None without a price.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.presets import economics_preset
    >>> terms = replace(economics_preset("typical"), dollars_per_gpu_hour=2.5)
    >>> dollars(gpu_hours=240_000.0, gpus=1000, calendar_days=10.0, terms=terms)
    600000.0
    """
    paid = paid_gpu_hours(gpu_hours=gpu_hours, gpus=gpus, calendar_days=calendar_days, terms=terms)
    return None if terms.dollars_per_gpu_hour is None else terms.dollars_per_gpu_hour * paid


def paid_gpu_hours(*, gpu_hours: Numeric, gpus: Numeric, calendar_days: Numeric, terms: Economics) -> Numeric:
    """On demand the `gpu_hours` that are used, restarts and lost work included; reserved 24 * gpus * max(calendar, reserved).

    `gpus` are those of the largest ramp stage, `calendar_days` and `gpu_hours` those of all stages.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.presets import economics_preset
    >>> terms = replace(economics_preset("typical"), billing="reserved", reserved_days=90.0)
    >>> float(paid_gpu_hours(gpu_hours=60_000.0, gpus=1024, calendar_days=3.0, terms=terms))
    2211840.0
    """
    if terms.billing == "on_demand":
        return gpu_hours
    days = calendar_days if terms.reserved_days is None else np.maximum(calendar_days, terms.reserved_days)
    return HOURS_PER_DAY * gpus * days
