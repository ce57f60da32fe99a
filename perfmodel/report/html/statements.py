"""All that a page needs of one run: read, predicted, explained stage by stage, with its outlook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from perfmodel.economics.outlook import Outlook, outlook
from perfmodel.exchange.presets import economics_preset, source_of
from perfmodel.exchange.questions.varied_runs import stage_index
from perfmodel.exchange.run_files import TYPICAL, RunCandidate, RunSource, Setting, read_candidates
from perfmodel.exchange.sources import run_sources
from perfmodel.explanation.explanation import Explanation, explanation
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import Prediction, predict
from perfmodel.spec.run import Run

MOST_EXPLAINED: Final = 6  # stages of a ramp that are explained one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatements:
    """A run, the first of its `candidates`; `explained` are stages of it in their order, `chosen` the one to show first."""

    candidates: tuple[RunCandidate, ...]
    predictions: tuple[Prediction, ...]  # of each candidate
    explained: tuple[Explanation, ...]
    chosen: int
    outlook: Outlook

    @property
    def run(self) -> Run:
        """The run that the page is about: the first of its candidates."""
        return self.candidates[0].run

    @property
    def foremost(self) -> Explanation:
        """The stage that comes first on a page: the last of the ramp, unless another is asked for."""
        return self.explained[self.chosen]

    @property
    def prediction(self) -> Prediction:
        """The prediction of that run."""
        return self.predictions[0]


def told(
    source: RunSource, settings: Sequence[Setting] = (), *, stage: int | None = None, most: int = MOST_EXPLAINED
) -> RunStatements:
    """The run called so with its settings; about `most` stages are explained, `stage` (from 1, else the last) among them."""
    candidates = read_candidates(source, settings)
    first, predictions = candidates[0], tuple(predict(each.run) for each in candidates)
    place = stage_index(first.run, stage)
    shown, origin = shown_places(len(first.run.stages), place, most=most), sources_of(source, settings)
    return RunStatements(
        candidates=candidates,
        predictions=predictions,
        explained=tuple(explanation(first.run, place=each, source=origin, chosen=first.values) for each in shown),
        chosen=shown.index(place),
        outlook=outlook(predictions[0], first.run.economics or economics_preset(TYPICAL)),
    )


def sources_of(source: RunSource, settings: Sequence[Setting]) -> Callable[[str], str]:
    """Where the number at a key path of a run comes from."""
    return partial(source_of, sources=run_sources(source, settings))


def shown_places(number: int, place: int, *, most: int = MOST_EXPLAINED) -> list[int]:
    """The places of all stages, or of many the first, the last and some between; `place` is among them.

    >>> shown_places(3, 2), shown_places(26, 24), shown_places(3, 1, most=1)
    ([0, 1, 2], [0, 5, 10, 15, 20, 24, 25], [1])
    """
    if most == 1:
        return [place]
    shown = min(number, most)
    return sorted({place, *(round(each * (number - 1) / max(shown - 1, 1)) for each in range(shown))})
