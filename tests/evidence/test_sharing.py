"""Are errors taken for shared as widely as other software and other models of a source show them to be?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from perfmodel.evidence.sharing import sharing_without_each
from perfmodel.evidence.tails import ALL
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.spec.evidence.run_evidence import RunEvidence
from perfmodel.spec.run import Run
from tests.evidence.test_discrepancy import compared
from tests.evidence.test_groups import RAMP


def run(configuration_deviation: float) -> Run:
    """A run of a cell in which configurations differ by so much."""
    cells = {"any": (0.3, configuration_deviation, configuration_deviation, 0.01, 9, 3)}
    return replace(RAMP, cluster=replace(RAMP.cluster, evidence=RunEvidence(name="runs", cells=cells)))


RUN, DIFFERENT = run(0.02), run(0.2)
OTHER_MODEL = replace(DIFFERENT, model=replace(RAMP.model, ffn_hidden_size=8192))
OTHER_SOFTWARE = replace(RUN, stack=replace(RAMP.stack, name="other"))


def rows(runs: tuple[Run, Run], *, alike: bool) -> list[TimeComparison]:
    """Two runs of each of a few sources, whose errors are the same or the other way round."""
    errors = np.linspace(-0.29, 0.29, 6)
    return [
        compared(f"s{place}", float(error if run is runs[0] or alike else -error), run, known=0.3)
        for place, error in enumerate(errors)
        for run in runs
    ]


def test_errors_of_other_software_are_shared_where_they_are_alike() -> None:
    """All of them, or none."""
    found = [sharing_without_each(rows((RUN, OTHER_SOFTWARE), alike=alike))[ALL].file for alike in (True, False)]
    assert found == [1.0, 0.0]


def test_errors_of_other_models_are_shared_where_they_are_alike() -> None:
    """As little as can be is of a model alone, or as much."""
    found = [sharing_without_each(rows((DIFFERENT, OTHER_MODEL), alike=alike))[ALL].models for alike in (True, False)]
    assert found[0] < 0.5 < found[1]


def test_a_source_that_is_left_out_says_nothing() -> None:
    """The only one with other software, against two that show the opposite."""
    alike, apart = (rows((RUN, OTHER_SOFTWARE), alike=each) for each in (True, False))
    few = [*apart[:2], *alike[-2:]]
    assert sharing_without_each(few)["s0"] == sharing_without_each(alike[-2:])[ALL]
    assert sharing_without_each(few)["s5"] == sharing_without_each(apart[:2])[ALL]
