"""What would make a server fit that does not: more GPUs of its node, or narrower weights, one of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from perfmodel.count.serving.memory import serving_memory
from perfmodel.errors import PerfmodelError
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.serving.forecast import DOES_NOT_FIT, fit_verdict
from perfmodel.spec.axes import TENSOR
from perfmodel.spec.serving.formats import WEIGHT_FORMATS
from perfmodel.spec.serving.setup import Request, ServingSetup


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRemedy:
    """One setting with which one request fits at least: tensor_parallel with its GPUs, or precision with a format."""

    setting: str
    value: int | str


def serving_remedies(setup: ServingSetup, request: Request) -> tuple[ServingRemedy, ...]:
    """The fewest GPUs of the node that hold one request, and the widest weights with which the same do; () where none."""
    most = int(np.asarray(setup.cluster.gpus_per_node))
    degrees = ((TENSOR.name, each, {TENSOR.name: each}) for each in range(setup.tensor_parallel + 1, most + 1))
    narrower = [each for each in WEIGHT_FORMATS.values() if each.everywhere and each.bytes < setup.weights.bytes]
    widest_first = sorted(narrower, key=lambda each: -each.bytes)
    precisions = (("precision", each.name, {"weights": each}) for each in widest_first)
    return (*_first_that_fits(setup, request, degrees), *_first_that_fits(setup, request, precisions))


def _first_that_fits(
    setup: ServingSetup, request: Request, ways: Iterable[tuple[str, int | str, dict[str, Any]]]
) -> Iterator[ServingRemedy]:
    for setting, value, changed in ways:
        try:
            other = replace(setup, **changed)
        except PerfmodelError:  # a degree that does not divide the model
            continue
        if fit_verdict(other, request, serving_memory(other)) != DOES_NOT_FIT:
            yield ServingRemedy(setting=setting, value=value)
            return
