"""Does the page of measured serving say how far forecasts are off, and does its grid have what it promises?"""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.benchmarks.project.measured_serving import BARS, LOADS, MODELS, grid, page, run_file, scores
from perfmodel.exchange.run_files import read_candidates
from perfmodel.model.supported import check_generates
from tests.evidence.test_pass_comparison import compared, record_of, small_run


def test_scores_and_page_are_those_of_the_comparisons() -> None:
    """Passes that took a quarter longer than predicted are 20 % off, in both passes and in every operator."""
    run = small_run()
    found = [(f"load {slower}", compared(run, record_of(run, slower=slower))) for slower in (1.0, 1.25, 1.25)]
    total = scores(found)
    assert {name: total[name] for name in BARS} == pytest.approx(dict.fromkeys(BARS, 0.2))
    text = page(found, Path("docs/measured_serving"))
    assert text.count("-20.0%") >= 4
    assert "| load 1.0 |" in text
    assert "| layer.mlp.fc1 | decode | 3 |" in text


def test_the_grid_has_every_kind_of_model_and_the_reference_model_generates_with_each() -> None:
    """Dense, windows, experts, latent attention; each under a single prompt and under a batch."""
    assert len(grid()) == len(set(grid())) == len(MODELS) * len(LOADS)
    kinds = set()
    for name in MODELS:
        run = read_candidates(run_file(name, cluster="amd-epyc-2-cores"))[0].run
        check_generates(run.model, run.layout(run.stages[0]))
        kinds |= {(kind.attention, kind.feed_forward) for kind in run.model.kinds.values()}
    assert {("full", "dense"), ("sliding", "dense"), ("full", "experts"), ("latent", "experts")} <= kinds
