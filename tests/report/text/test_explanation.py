"""Do an explanation and a term of it fit the page, and say what they hold?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from rich.console import RenderableType
from rich.table import Table

from perfmodel import api
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.terms import TERMS
from perfmodel.explanation.waterfall import STEPS
from perfmodel.report.text.explanation import (
    STEP_LABELS,
    TERM_LABELS,
    change_text,
    explanation_report,
    moves_table,
    step_text,
    waterfall_table,
)
from perfmodel.report.text.term import shape_text, term_report
from perfmodel.report.text.terminal import TitledBlock, as_text
from perfmodel.spec.layout import ProcessGroup

RUN = "nemotron-4-15b"
ONE_STAGE = "stages=[{data_parallel: 96, global_batch_size: 384}]"
GROUP = ProcessGroup(name="tensor_parallel", ranks=8, stride=1)


@cache
def explained_of(*settings: str) -> Explanation:
    """The explanation of the run under some settings."""
    return api.explain(RUN, settings)


@cache
def every_report(*settings: str, every: bool) -> tuple[RenderableType, ...]:
    """Of the explanation and of each of its terms."""
    explained = explained_of(*settings)
    terms = [term_report(explained, explained.term(name), every=every) for name in TERMS]
    return (explanation_report(explained, every=every), *terms)


def rows(titled: RenderableType) -> list[list[str]]:
    """The cells of a table under a title, as plain text."""
    assert isinstance(titled, TitledBlock)
    assert isinstance(titled.content, Table)
    return [[str(cell) for cell in row] for row in zip(*(column.cells for column in titled.content.columns), strict=True)]


def test_every_step_and_term_has_a_label() -> None:
    """No name of the code on the page."""
    assert set(STEP_LABELS) == set(STEPS)
    assert set(TERM_LABELS) == set(TERMS)


@pytest.mark.parametrize(
    "settings",
    [[], ["precision=fp8", "recompute=full", "pipeline_parallel=4"], ["model=nemotron-4-340b", "tensor_parallel=8"]],
    ids=["ramp", "pipeline", "does not fit"],
)
@pytest.mark.parametrize("every", [False, True], ids=["short", "all"])
@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_the_width(settings: list[str], every: bool, width: int) -> None:
    """Plain ASCII, nothing cut and nothing beyond the last column."""
    for report in every_report(*settings, every=every):
        text = as_text(report, width=width)
        assert text.isascii()
        assert max(map(len, text.splitlines())) <= width


def test_the_waterfall_shows_every_step_that_costs_anything() -> None:
    """In order, with milliseconds and points."""
    explained = explained_of("pipeline_parallel=4")
    shown = {label: cells for label, *cells in rows(waterfall_table(explained))}
    for step in explained.waterfall.steps:
        if abs(step.mfu_change) < 5e-5:
            assert STEP_LABELS[step.name] not in shown
        else:
            assert shown[STEP_LABELS[step.name]][:2] == [f"{1e3 * step.seconds:.1f}", f"{100 * step.mfu_change:+.1f}"]


def test_bars_shrink_from_the_peak_to_the_prediction() -> None:
    """A full one first, as much of it as the MFU last."""
    explained = explained_of()
    bars = [cells[-1] for cells in rows(waterfall_table(explained))]
    assert bars[0] == "#" * 16
    assert bars[-1] == "#" * round(16 * explained.waterfall.mfu)
    kept = [bar.count("#") for bar in bars]
    assert kept[1:] == sorted(kept[1:], reverse=True)


def test_what_does_not_fit_is_said_first() -> None:
    """And which moves would fit."""
    explained = explained_of("tensor_parallel=1", ONE_STAGE)
    text = as_text(explanation_report(explained), width=80)
    assert text.startswith("Does not fit in memory: needs 97.0 GiB of the GPU's 79.1 GiB.")
    assert "The fastest move that fits: TP 1 -> 2 (DP 48)" in text
    words = {label: cells[-1] for label, *cells in rows(moves_table(explained))}
    assert words["TP 1 -> 2 (DP 48)"] == "and fits"
    assert "but does not fit" in words.values()


def test_only_a_ramp_has_stages() -> None:
    """A run of one stage does not speak of them."""
    ramp, single = (as_text(explanation_report(api.explain(RUN, each)), width=80) for each in ([], [ONE_STAGE]))
    assert "stage 3 of 3" in ramp
    assert "--stage N" in ramp
    assert "stage 1 of 1" not in single
    assert "--stage N" not in single


def test_what_is_left_out_is_counted_and_all_lists_it() -> None:
    """Numbers without effect, and moves with the reason against them."""
    explained = explained_of()
    short, whole = (as_text(explanation_report(explained, every=every), width=80) for every in (False, True))
    assert "without any; --all lists them." in short
    assert "1 more cannot be made; --all says why." in short
    assert "2 pieces a stage need more than one pipeline stage" in " ".join(whole.split())
    assert "--all" not in whole
    assert len(whole.splitlines()) > len(short.splitlines()) + 100


def test_of_candidates_it_says_which() -> None:
    """The first."""
    text = as_text(explanation_report(explained_of("micro_batch_size=[1,2]")), width=80)
    assert "Of the candidates this is the first: micro_batch_size 1." in text


def test_a_term_shows_sources_once() -> None:
    """Numbers point to them."""
    explained = explained_of()
    text = as_text(term_report(explained, explained.term("tensor_parallel")), width=120)
    source = "NVIDIA H100 datasheet, half of the bidirectional rate"
    assert text.count(source) == 1
    (line,) = (line.split() for line in text.splitlines() if "cluster.links.node.bandwidth_bytes_per_s" in line)
    assert line[1] == "4.5e+11"
    assert f"{line[-1]} {source}" in " ".join(text.split())


def test_lines_of_a_docstring_are_joined_but_not_equations() -> None:
    """Prose wraps at the page; what is indented, or begins with x =, keeps its line."""
    explained = explained_of()
    lines = as_text(term_report(explained, explained.term("matmul")), width=160).splitlines()
    assert any(line.startswith("  C1 = min over tiles and splits s of") for line in lines)
    assert any(line.startswith("      F/(P*e*c*rate)") for line in lines)
    assert any(line.startswith("  padding = T*tile/(m*n) - 1") and len(line) > 130 for line in lines)


@pytest.mark.parametrize(
    ("operator", "text"),
    [
        (Matmul(name="a", rows=4096, inner=6144, columns=3072, precision="bf16"), "4096 x 6144 x 3072 bf16"),
        (Matmul(name="a", rows=8, inner=16, columns=32, batch=6, precision="fp8"), "6 of 8 x 16 x 32 fp8"),
        (MemoryBound(name="a", moved_bytes=50e6, kernels=2), "50 MB, kernels: 2"),
        (Collective(name="a", kind="all_gather", payload_bytes=1.5e6, group=GROUP), "all-gather 1.5 MB over 8"),
        (
            FusedAttention(
                name="a", sequences=2, heads=6, kv_heads=1, head_size=128, query_length=512, key_length=1024, precision="bf16"
            ),
            "2 x 512 x 1024, 6 heads of 128",
        ),
    ],
)
def test_shapes_are_short(operator: Operator, text: str) -> None:
    """The sizes that decide."""
    assert shape_text(operator) == text
    assert shape_text(replace(operator, name="another")) == text


def test_changes_keep_their_sign_and_small_ones_a_digit_more() -> None:
    """A number at its limit is not moved."""
    assert [change_text(each) for each in (-0.0352, 0.0059, 0.0)] == ["-3.5 %", "+0.59 %", "+0.00 %"]
    assert [step_text(each) for each in (0.1, -0.1, 0.0531, 0.0)] == ["+10 %", "-10 %", "+5.31 %", "its limit"]
