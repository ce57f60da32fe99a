"""What would make a run fit that does not: options of the command that asked, each of which was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from perfmodel.errors import PerfmodelError
from perfmodel.exchange.presets import DATA, cluster_preset
from perfmodel.exchange.replicas import GPUS
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.explanation.moves import DEGREES, Move, moves
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import Prediction
from perfmodel.spec.axes import FILLING
from perfmodel.spec.tuning.fine_tuning import TRAININGS, FineTuning
from perfmodel.spec.tuning.optimizers import in_blocks

MOST_DOUBLINGS: Final = 6  # of the GPUs
MOST_GPUS: Final = 8  # that a fine-tuning is offered


@dataclass(frozen=True, slots=True, kw_only=True)
class FittingOption:
    """Options by their names and settings of the run, with which it fits."""

    options: Mapping[str, Any]
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As they are typed: --gpus 32, or --set recompute=full."""
        named = (f"--{name} {value}" for name, value in self.options.items())
        return " ".join([*named, *(f"--set {each}" for each in self.settings)])


Again: TypeAlias = Callable[[FittingOption], Prediction]  # the same question with other options


def fitting_options(found: Prediction, again: Again, *, is_searched: bool) -> tuple[FittingOption, ...]:
    """The nearest changes of each kind after which a run fits: of its layout or its training, more GPUs, a larger GPU.

    `is_searched` says that the layout is the best of a search, so that no other one fits either.
    """
    tuning = found.run.fine_tuning
    kinds = [_more_gpus(found)] if tuning is None else [_trainings(tuning), _more_gpus(found, MOST_GPUS), _larger_gpus(found)]
    if tuning is None and not is_searched:
        kinds.insert(0, _layouts(found))
    firsts = (next((each for each in kind if _fits(each, again)), None) for kind in kinds)
    return tuple(each for each in firsts if each is not None)


def _fits(option: FittingOption, again: Again) -> bool:
    try:
        return again(option).may_fit
    except PerfmodelError:  # what cannot be
        return False


def _layouts(found: Prediction) -> Iterator[FittingOption]:
    """One move of the layout on the same GPUs, the fastest first, in the same arithmetic."""
    _, worst = max(found.stages, key=lambda stage: float(stage[1].memory.total_bytes))
    for move in moves(worst).possible:
        is_of_one_stage = len(found.stages) == 1 or move.key not in DEGREES
        if move.predicted is not None and move.predicted.fits and move.key != "precision" and is_of_one_stage:
            yield FittingOption(options={}, settings=tuple(_settings_of(move)))


def _settings_of(move: Move) -> Iterator[str]:
    after = str(move.after).lower() if isinstance(move.after, bool) else move.after
    yield f"{move.key}={after}"
    if move.key in DEGREES and move.layout is not None:
        yield f"stages[*].{FILLING.name}={int(move.layout.data_parallel)}"


def _more_gpus(found: Prediction, most: int | None = None) -> Iterator[FittingOption]:
    gpus = max(int(predicted.layout.gpus) for _, predicted in found.stages)
    numbers = (gpus * 2**step for step in range(1, MOST_DOUBLINGS + 1))
    yield from (FittingOption(options={GPUS: number}) for number in numbers if most is None or number <= most)


def _trainings(tuning: FineTuning) -> Iterator[FittingOption]:
    """The same optimizer with states of fewer bytes, where there are many, then a training of less."""
    if not tuning.has_adapters:
        yield from (FittingOption(options={}, settings=(f"optimizer={name}",)) for name in in_blocks(tuning.optimizer))
    less = TRAININGS[TRAININGS.index(tuning.training) + 1 :]
    yield from (FittingOption(options={"training": training}) for training in less)


def _larger_gpus(found: Prediction) -> Iterator[FittingOption]:
    """GPUs with more memory than is needed, the smallest first."""
    needed = max(float(predicted.memory.total_bytes) for _, predicted in found.stages)
    named: Sequence[tuple[str, str]] = [*read_mapping(DATA / "csv_columns.yaml")["clusters"].items()]
    sizes = {name: float(cluster_preset(cluster).gpu.memory_bytes) for name, cluster in named}
    for name in sorted((each for each in sizes if sizes[each] > needed), key=lambda each: sizes[each]):
        yield FittingOption(options={"gpu": name})
