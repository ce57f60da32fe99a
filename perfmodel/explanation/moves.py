"""What one step of the layout does: a degree or a size halved or doubled, another recompute mode, sharding or precision.

The number of GPUs and the global batch stay: data parallelism gives or takes what other degrees need. Experts are spread over
the GPUs of a pipeline stage once more: their moves leave data parallelism as it is, and those of how tokens travel are of the
software. Moves that cannot be made carry the reason. Not moved: the copies of hsdp's shards on their own, schedules, shardings
and degrees that the stack does not offer, and 16-bit formats against each other, which run alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.explanation.expert_moves import OF_SOFTWARE, expert_candidates, half_and_double, with_software
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.axes import FILLING, REPLICA_AXES
from perfmodel.spec.fields import anywhere
from perfmodel.spec.layout import RECOMPUTES, Layout
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.precision import RECIPES, PrecisionRecipe, number_format
from perfmodel.spec.refusals import check_setup
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack

DEGREES: Final = tuple(axis.name for axis in REPLICA_AXES)  # that share GPUs with data parallelism
PLAIN_BYTES: Final = 2  # of one number in 16 bits, which nobody trades for more that are slower
SIZES: Final = ("virtual_pipeline", "micro_batch_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One setting changed; `refusal` says why it cannot be, and then there is no prediction."""

    key: str
    before: Any
    after: Any
    layout: Layout | None  # None where the GPUs do not divide so
    predicted: StagePrediction | None
    time_change: float  # relative; 0 for a move that cannot be made
    refusal: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Moves(Tabular):
    """All single moves from one layout: those that can be made, the fastest first, and those that cannot."""

    possible: tuple[Move, ...]
    refused: tuple[Move, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Every move; the numbers of those that cannot be made are None."""
        return [_row(move) for move in (*self.possible, *self.refused)]


def _row(move: Move) -> dict[str, Any]:
    there = move.predicted
    return {
        "key": move.key,
        "before": move.before,
        "after": move.after,
        FILLING.name: None if move.layout is None else int(move.layout.data_parallel),
        "time_change": None if there is None else move.time_change,
        "iteration_time_s": None if there is None else float(there.iteration_time_s),
        "mfu": None if there is None else float(there.mfu),
        "memory_bytes": None if there is None else float(there.memory.total_bytes),
        "fits": None if there is None else bool(there.fits),
        "refusal": move.refusal,
    }


def moves(predicted: StagePrediction) -> Moves:
    """Every single move from the layout of a prediction.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> from perfmodel.prediction import predict
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> every = moves(predict(run).stages[-1][1])
    >>> best = every.possible[0]
    >>> best.key, best.before, best.after, bool(best.predicted.fits)
    ('micro_batch_size', 1, 2, True)
    """
    made = [_made(predicted, key, after) for key, after in _candidates(predicted.work.setup)]
    possible = sorted((move for move in made if move.predicted is not None), key=lambda move: move.time_change)
    return Moves(possible=tuple(possible), refused=tuple(move for move in made if move.predicted is None))


def _made(predicted: StagePrediction, key: str, after: Any) -> Move:
    setup = predicted.work.setup
    before, layout = _held(setup, key), None
    try:
        layout = with_setting(predicted.layout, key, after, setup.cluster)
        setup = replace(setup, layout=layout, stack=_software(setup.stack, key, after))
        check_setup(setup)
    except PerfmodelError as error:
        return Move(key=key, before=before, after=after, layout=layout, predicted=None, time_change=0.0, refusal=str(error))
    with np.errstate(all="ignore"):
        there = predict_stage(setup)
    change = float(there.iteration_time_s / predicted.iteration_time_s) - 1.0
    return Move(key=key, before=before, after=after, layout=layout, predicted=there, time_change=change, refusal="")


def _candidates(setup: Setup) -> Iterator[tuple[str, Any]]:
    """Every setting with every value that is one step away."""
    cluster, stack, layout = setup.cluster, setup.stack, setup.layout
    for key in (*DEGREES, *SIZES):
        offered = key in SIZES or key in stack.offers.degrees
        yield from ((key, value) for value in half_and_double(getattr(layout, key)) if offered or value == 1)
    if layout.recompute == "full":
        layers = _held(setup, "recompute_layers")
        most = layers if layout.recompute_layers is None else setup.model.layers
        yield from (("recompute_layers", value) for value in half_and_double(layers) if value <= most)
    others = {
        "recompute": RECOMPUTES,
        "sharding": stack.offers.shardings,
        "pipeline_schedule": stack.offers.schedules if layout.pipeline_parallel > 1 else (),
        "sequence_parallel": (True, False) if layout.tensor_parallel > 1 else (),
    }
    for key, values in others.items():
        yield from ((key, value) for value in values if value != getattr(layout, key))
    yield from (("precision", name) for name in _other_precisions(cluster.gpu, layout.recipe))
    yield from expert_candidates(setup)


def _other_precisions(gpu: Gpu, recipe: PrecisionRecipe) -> Iterator[str]:
    """One recipe for each kind of arithmetic of a GPU: in 16 bits or fewer, or in more where it is faster than what runs."""
    seen, least = {number_format(recipe.products).circuits}, gpu.peak(recipe.products)
    for name, peak in gpu.peak_flop_per_s.items():
        other = number_format(name)
        if name in RECIPES and other.circuits not in seen and (other.bytes <= PLAIN_BYTES or anywhere(peak >= least)):
            seen.add(other.circuits)
            yield name


def _held(setup: Setup, key: str) -> Any:
    """What a layout or its software holds; where it does not say how many layers run again, it is all of a stage."""
    if key.startswith(OF_SOFTWARE):
        return getattr(setup.stack.experts, key.removeprefix(OF_SOFTWARE))
    value, stages = getattr(setup.layout, key), setup.layout.pipeline_parallel
    return int(np.ceil(setup.model.layers / stages)) if key == "recompute_layers" and value is None else value


def _software(stack: SoftwareStack, key: str, value: Any) -> SoftwareStack:
    return with_software(stack, key, value) if key.startswith(OF_SOFTWARE) else stack


def with_setting(layout: Layout, key: str, value: Any, cluster: Cluster) -> Layout:
    """The layout with one setting changed, on as many GPUs. Errors: InputError when they do not divide so."""
    if key.startswith(OF_SOFTWARE):
        return layout
    changes: dict[str, Any] = {key: value}
    if key in DEGREES:
        gpus, shared = int(layout.gpus), value
        for other in DEGREES:
            shared = shared * (1 if other == key else int(getattr(layout, other)))
        if gpus % shared:
            raise InputError(f"a replica would need {shared} GPUs, which do not divide the {gpus} of the run", key=key)
        changes[FILLING.name] = gpus // shared
    if key == "recompute" and value != "full":
        changes["recompute_layers"] = None
    if key == "recompute" and value != "selective":
        changes["recompute_modules"] = ()
    if key == "recompute_modules":
        changes |= {"recompute": "selective", "recompute_layers": None}
    if key == "sharding":
        changes["data_parallel_replicas"] = _copies(layout, cluster) if value == "hsdp" else 1
    return replace(layout, **changes)


def _copies(layout: Layout, cluster: Cluster) -> int:
    """One copy of the shards in each node, as hsdp is mostly run."""
    in_a_node = max(int(cluster.gpus_per_node) // int(layout.tensor_parallel), 1)
    return max(int(layout.data_parallel * layout.context_parallel) // in_a_node, 1)
