"""Which numbers of a cluster or a run are likely slips: right in form, and what nobody means.

A number of a cluster is held against the shipped hardware of the same name. A likely slip is never an error: it is said in one
sentence that names the key, the value and what was likely meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from perfmodel.exchange.presets import DATA, preset_names, read_preset
from perfmodel.exchange.syntax.annotations import separated
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster, Gpu, Links
from perfmodel.spec.precision import number_format
from perfmodel.spec.run import Run
from perfmodel.units import GIBIBYTE, gibibytes_text, parse_quantity

if TYPE_CHECKING:
    from perfmodel.prediction import Prediction, StagePrediction

FASTEST_NIC_BYTES_PER_S: Final = 100e9  # 800 Gb/s: no network of today gives one GPU more
BITS: Final = 8e-9  # from bytes to gigabits
SPARSITY: Final = 2.0  # how many times the dense rate a datasheet prints for matrices of which half the numbers are zeros
NEAR: Final = 0.02  # as datasheets round
LEAST_SHARE: Final = 0.9  # of its printed memory, that a GPU gives a program


def likely_slips(cluster: Cluster) -> tuple[str, ...]:
    """A sentence for each number of `cluster` that is likely a slip: the rate of a whole node, a sparse peak, a printed size.

    Ignored: numbers of hardware that has no preset of its name, but for a network faster than any; arrays.
    """
    return (
        *_of_the_network(cluster.links, cluster.nics_per_node),
        *_of_the_peaks(cluster.gpu),
        *_of_the_memory(cluster.gpu),
    )


def slips_of_a_run(run: Run) -> tuple[str, ...]:
    """A sentence where tensor parallelism leaves its node, and for a sequence of 4,000 tokens where people mean 4,096.

    Ignored: arrays.
    """
    return (*_of_the_tensor_ranks(run), *slips_of_a_length(run.sequence_length))


def slips_of_a_prediction(prediction: Prediction) -> tuple[str, ...]:
    """A sentence where a predicted MFU is above that of every published run, of the ramp stage with the highest."""
    stages = [predicted for _, predicted in prediction.stages]
    rates = [_single(predicted.mfu) or 0.0 for predicted in stages]
    place = rates.index(max(rates))
    return slips_of_a_stage(stages[place], f" of stage {place + 1}" if len(stages) > 1 else "")


def slips_of_a_stage(predicted: StagePrediction, of_stage: str = "") -> tuple[str, ...]:
    """A sentence where the MFU of a stage is above that of every published run, with what it is of the causal half.

    Ignored: arrays, and stacks that hide every collective, which are bounds.
    """
    setup, mfu = predicted.work.setup, _single(predicted.mfu) or 0.0
    known = highest_mfu(setup.layout.recipe.products)
    if setup.stack.overlap.hide_all or known is None or mfu <= known:
        return ()
    above = f"is above the {100 * known:.3g} % of the fastest published run in its precision"
    half = f"{100 * float(predicted.mfu_in('causal')):.3g} % with the half that causal kernels compute"
    return (f"the MFU{of_stage}, {100 * mfu:.3g} %, {above} (attention counts in full; {half})",)


def highest_mfu(precision: str) -> float | None:
    """The highest MFU of any published run on the arithmetic of a number format; None where there is no run of it.

    >>> highest_mfu("fp16") == highest_mfu("bf16"), highest_mfu("tf32")
    (True, None)
    """
    return _highest_mfu().get(number_format(precision).circuits)


def _of_the_tensor_ranks(run: Run) -> Iterator[str]:
    ranks, node = _single(run.tensor_parallel), _single(run.cluster.gpus_per_node)
    if ranks is not None and node is not None and ranks > node:
        gpus = "GPU" if node == 1 else "GPUs"
        yield (
            f"tensor_parallel: {ranks:.0f} ranks reach beyond a node of {node:.0f} {gpus}, so that every layer waits for the "
            f"network; at most {node:.0f} was likely meant"
        )


def slips_of_a_length(sequence_length: Numeric) -> Iterator[str]:
    """A sentence where a number of tokens is written in thousands and was likely meant in powers of two."""
    tokens = _single(sequence_length)
    if tokens is None or tokens % 1000:
        return
    thousands = int(tokens) // 1000
    if thousands > 1 and thousands & (thousands - 1) == 0:  # a power of two
        yield f"sequence_length: {tokens:,.0f} tokens are {thousands}k of a thousand; {thousands * 1024:,} were likely meant"


def _of_the_network(links: Links, nics_per_node: int) -> Iterator[str]:
    rate = _single(links.network.bandwidth_bytes_per_s)
    if rate is None:
        return
    known = _link_rates().get(links.network.name)
    is_nodes = known is not None and nics_per_node > 1 and _near(rate, nics_per_node * known)
    if not is_nodes and rate <= FASTEST_NIC_BYTES_PER_S * (1.0 + NEAR):
        return
    meant = (
        f"of its {nics_per_node} NICs each has {rate * BITS / nics_per_node:,.4g} Gb/s" if nics_per_node > 1 else "see its NICs"
    )
    yield (
        f"cluster.links.network.bandwidth_bytes_per_s: {rate * BITS:,.5g} Gb/s is likely the rate of a whole node, "
        f"where that of one NIC is needed; {meant}"
    )


def _of_the_peaks(gpu: Gpu) -> Iterator[str]:
    known = _dense_peaks().get(gpu.name, {})
    for precision, peak in gpu.peak_flop_per_s.items():
        rate, dense = _single(peak), known.get(precision)
        if rate is not None and dense is not None and _near(rate, SPARSITY * dense):
            yield (
                f"cluster.gpu.peak_flop_per_s.{precision}: {rate / 1e12:,.5g} TFLOP/s is twice the dense rate of {gpu.name}, "
                f"as datasheets print it with sparsity; {dense / 1e12:,.5g} TFLOP/s was likely meant"
            )


def _of_the_memory(gpu: Gpu) -> Iterator[str]:
    size, known = _single(gpu.memory_bytes), _memory_bytes().get(gpu.name)
    if size is None or known is None or size == known or not LEAST_SHARE * known <= size <= known / LEAST_SHARE:
        return
    unit, scale = next(((unit, scale) for unit, scale in (("GB", 1e9), ("GiB", GIBIBYTE)) if size % scale == 0), ("", 1.0))
    if unit:
        yield (
            f"cluster.gpu.memory_bytes: {size / scale:g} {unit} is likely the printed size of {gpu.name}; "
            f"PyTorch finds {gibibytes_text(known)} there, which was likely meant"
        )


def _near(value: float, other: float) -> bool:
    return abs(value / other - 1.0) <= NEAR


def _single(value: Numeric) -> float | None:
    """The number itself; None for an array of several."""
    return float(value) if np.ndim(value) == 0 else None


@cache
def _highest_mfu() -> Mapping[str, float]:
    known, _ = separated(read_mapping(DATA / "highest_mfu.yaml"))
    return {circuits: parse_quantity(share, "ratio") for circuits, share in known.items()}


@cache
def _link_rates() -> Mapping[str, float]:
    """Datasheet rate [bytes/s] of each shipped link by title."""
    links = (read_preset("links", name)[0] for name in preset_names("links"))
    return {str(link["name"]): parse_quantity(link["bandwidth_bytes_per_s"], "bytes_per_s") for link in links}


@cache
def _memory_bytes() -> Mapping[str, float]:
    """Memory [bytes] of each shipped GPU by title."""
    return {str(gpu["name"]): parse_quantity(gpu["memory_bytes"], "bytes") for gpu in _gpus()}


@cache
def _dense_peaks() -> Mapping[str, Mapping[str, float]]:
    """Dense peak rates [FLOP/s] by number format of each shipped GPU by title."""
    return {
        str(gpu["name"]): {key: parse_quantity(rate, "flop_per_s") for key, rate in gpu["peak_flop_per_s"].items()}
        for gpu in _gpus()
    }


@cache
def _gpus() -> tuple[Mapping[str, Any], ...]:
    return tuple(read_preset("gpus", name)[0] for name in preset_names("gpus"))
