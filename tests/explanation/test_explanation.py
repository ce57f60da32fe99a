"""Is a stage of a run explained as a whole, through the API too?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.exchange.run_files import read_candidates
from perfmodel.explanation.explanation import explanation

RUN = read_candidates("nemotron-4-15b")[0].run


def test_the_last_stage_is_explained_unless_another_is_asked_for() -> None:
    """Most tokens are in it."""
    last, first = api.explain("nemotron-4-15b"), api.explain("nemotron-4-15b", stage=1)
    assert (last.place, first.place) == (2, 0)
    assert last.waterfall.iteration_time_s == last.predicted.iteration_time_s
    assert (last.predicted.layout.data_parallel, first.predicted.layout.data_parallel) == (288, 96)


@pytest.mark.parametrize("stage", [0, 4, -1])
def test_a_stage_that_is_not_there_is_refused(stage: int) -> None:
    """They count from 1, as in the other commands."""
    with pytest.raises(InputError, match=r"stage: .* has no stage .*: its stages are 1 to 3"):
        api.explain("nemotron-4-15b", stage=stage)


def test_settings_change_the_run_that_is_explained() -> None:
    """A mapping or texts; sources say which numbers were set."""
    path = "cluster.links.node.bandwidth_bytes_per_s"
    texts, mapping = api.explain("nemotron-4-15b", [f"{path}=225GB/s"]), api.explain("nemotron-4-15b", {path: 225e9})
    assert texts.waterfall == mapping.waterfall
    assert texts.waterfall.iteration_time_s > api.explain("nemotron-4-15b").waterfall.iteration_time_s
    assert texts.source(path) == "given with --set, or as a setting"
    assert "NVIDIA H100 datasheet" in api.explain("nemotron-4-15b").source(path)


def test_of_candidates_the_first_is_explained() -> None:
    """And named."""
    explained = api.explain("nemotron-4-15b", ["micro_batch_size=[2,1]"])
    assert dict(explained.chosen) == {"micro_batch_size": 2}
    assert explained.predicted.layout.micro_batch_size == 2


def test_a_run_without_a_file_has_no_sources() -> None:
    """All else is as with one."""
    explained = explanation(RUN)
    assert explained.source("cluster.compute_scale") == ""
    assert explained.waterfall == api.explain("nemotron-4-15b").waterfall
    assert api.explain(RUN).source("cluster.compute_scale") == ""


def test_arrays_are_refused() -> None:
    """One layout at a time."""
    many = replace(RUN, micro_batch_size=np.array([1, 2, 4]))
    with pytest.raises(InputError, match="one layout at a time"):
        explanation(many)


def test_everything_is_in_one_table() -> None:
    """Steps, levers and moves, for a data frame."""
    explained = explanation(RUN)
    rows = explained.rows()
    assert {row["kind"] for row in rows} == {"step", "lever", "move"}
    assert len({tuple(row) for row in rows}) == 1
    moves = [row for row in rows if row["kind"] == "move"]
    assert [row["time_change"] for row in moves] == [move.time_change for move in explained.moves.possible]
