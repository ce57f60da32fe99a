"""Why an iteration takes as long as it does, and what would change it: the waterfall, the levers and the moves of one stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.explanation.moves import Moves, moves
from perfmodel.explanation.sensitivity import Sensitivity, sensitivity
from perfmodel.explanation.terms import Term, term
from perfmodel.explanation.waterfall import Waterfall, waterfall
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import StagePrediction, predict
from perfmodel.spec.run import Run
from perfmodel.units import seconds_text

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def unknown(_: str) -> str:
    """The source of a number in a run that no file describes."""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Explanation(Tabular):
    """One stage of a run, explained; `place` is that of the stage in the ramp, from 0.

    `source` says where the number at a key path comes from ("" where nobody says), `chosen` which of a run's candidates this is
    (empty for a run that has none).
    """

    run: Run
    place: int
    predicted: StagePrediction
    waterfall: Waterfall
    sensitivity: Sensitivity
    moves: Moves
    source: Callable[[str], str]
    chosen: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """MFU and time of the stage, and what costs most of it."""
        most = max(self.waterfall.steps, key=lambda step: step.seconds)
        time = seconds_text(self.waterfall.iteration_time_s)
        whole = f"MFU {100 * self.waterfall.mfu:.1f} %, {time} an iteration"
        return f"stage {self.place + 1} of {self.run.name}: {whole}; most is lost to {most.name}, {seconds_text(most.seconds)}"

    def term(self, name: str) -> Term:
        """What stands behind one term of the iteration. Errors: InputError for an unknown one."""
        return term(name, self.predicted, self.sensitivity, cluster=self.run.cluster, stack=self.run.stack)

    def rows(self) -> list[dict[str, Any]]:
        """One table of all: steps from the peak, then levers, then moves of the layout that can be made."""
        total_s = self.waterfall.iteration_time_s
        steps = [_row("step", step.name, "", -step.seconds / total_s, -step.seconds) for step in self.waterfall.steps]
        levers = [
            _row("lever", effect.lever.name, f"{100 * step:+.3g} %", change, change * total_s)
            for effect in self.sensitivity.effects()
            for step, change in (effect.helping,)
        ]
        made = [
            _row("move", move.key, f"{move.before} -> {move.after}", move.time_change, move.time_change * total_s)
            | {"fits": None if move.predicted is None else bool(move.predicted.fits)}
            for move in self.moves.possible
        ]
        return [*steps, *levers, *made]


def _row(kind: str, name: str, change: str, relative: float, seconds: float) -> dict[str, Any]:
    """`time_change` is relative to the iteration; of a step, what the iteration would be without it."""
    return {"kind": kind, "name": name, "change": change, "time_change": relative, "seconds": seconds, "fits": None}


def explanation(
    run: Run, *, place: int = -1, source: Callable[[str], str] = unknown, chosen: Mapping[str, Any] = NOTHING
) -> Explanation:
    """The stage at `place` of the ramp explained, -1 the last.

    Errors: InputError for a run of arrays, NotSupportedError for one whose state lies in the memory of its host.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> whole = explanation(read_candidates("nemotron-4-15b")[0].run)
    >>> whole.place, whole.moves.possible[0].key
    (2, 'micro_batch_size')
    """
    _, predicted = predict(run).stages[place]
    if run.offload:
        raise NotSupportedError("waiting for the host is not explained; predict shows how long that is", key="offload")
    if np.ndim(predicted.iteration_time_s):
        raise InputError("this run holds arrays of layouts or numbers; one layout at a time can be explained")
    return Explanation(
        run=run,
        place=place % len(run.stages),
        predicted=predicted,
        waterfall=waterfall(predicted, cluster=run.cluster, stack=run.stack),
        sensitivity=sensitivity(predicted.work.setup),
        moves=moves(predicted),
        source=source,
        chosen=chosen,
    )
