"""How many examples a property is tried on: few and always the same ones, or many and others each time (make properties)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from hypothesis import HealthCheck, Phase, settings

DEPTH: Final = int(os.environ.get("PROPERTY_DEPTH", "1"))  # times the examples; above 1 they are drawn anew each time


def examples(number: int) -> Callable[[Any], Any]:
    """A property on so many examples, or DEPTH times as many."""
    return settings(
        max_examples=number * DEPTH,
        derandomize=DEPTH == 1,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
