"""Does a notebook see each result as a line of text, a report and figures?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest

import perfmodel as pm
from perfmodel.frames import LOOKS, OneLine, Tabular
from perfmodel.report.notebook import figures_of

RUN = "nemotron-4-15b"
LONGEST = 200  # letters of a line
knows_pyplot = pytest.mark.skipif(
    tuple(map(int, version("matplotlib").split(".")[:2])) < (3, 11), reason="pyplot takes no figure that it has not made"
)


def results() -> Iterator[Tabular]:
    """One of each kind that the API gives, quick ones."""
    yield pm.predict(RUN)
    yield pm.whatif(RUN, {"half the batch": {"stages[*].global_batch_size": "x0.5"}})
    yield pm.sweep(RUN, {"micro_batch_size": [1, 2]})
    yield pm.explain(RUN)
    yield pm.diagnose(RUN, 9.0)
    yield pm.timeline(RUN, detail="passes")
    yield pm.plan("llama-3.1-8b", cluster="dgx-h100", gpus=8, global_batch_size=8, choose={"recompute": "none"})
    few = {"recompute": "none", "context_parallel": 1}
    yield pm.plan_hardware("llama-3.1-8b", ["dgx-h100", "dgx-b200"], gpus=8, global_batch_size=8, choose=few)
    yield pm.infer("llama-3.1-8b", gpu="h100-sxm-80gb", concurrency="1,8")[0]


@pytest.fixture(scope="module")
def every() -> list[Tabular]:
    """All of them, made once."""
    return [*results()]


def test_the_text_of_a_result_is_one_line(every: list[Tabular]) -> None:
    """However much it holds: a cell of a notebook prints it."""
    for result in every:
        assert isinstance(result, OneLine)
        assert repr(result).startswith(f"<{type(result).__name__}: ")
        assert "\n" not in repr(result)
        assert len(repr(result)) < LONGEST


def test_what_is_inside_a_result_is_one_line_too() -> None:
    """The run, a stage, a scenario, an option of a plan."""
    predicted = pm.predict(RUN)
    changed = pm.whatif(RUN, {"FP8": {"precision": "fp8"}})
    parts: list[Any] = [predicted.run, predicted.stages[0][1], changed.before, changed.scenarios[0]]
    for part in parts:
        assert len(repr(part)) < LONGEST


def test_a_notebook_shows_the_report_that_the_command_prints(every: list[Tabular]) -> None:
    """As HTML, with the names of its tables."""
    for result in every:
        shown = result._repr_html_()
        assert shown.startswith("<div>")
        assert "<table>" in shown or "<ul>" in shown
    assert "Where an iteration goes, ms" in every[0]._repr_html_()


def test_a_result_without_a_report_is_a_table_of_its_rows() -> None:
    """Its columns are those of the data frame."""
    fall = pm.explain(RUN).waterfall
    shown = fall._repr_html_()
    assert all(f">{name}<" in shown for name in fall.to_pandas().columns)


@knows_pyplot
def test_every_figure_is_drawn_and_its_axes_are_given(every: list[Tabular]) -> None:
    """In a figure that pyplot knows, so that a notebook shows it."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    drawn = 0
    for result in every:
        for kind in figures_of(result):
            axes = result.plot(kind)
            assert axes.figure is plt.gcf()
            assert axes in axes.figure.axes
            plt.close("all")
            drawn += 1
    assert drawn >= 15


@knows_pyplot
def test_a_figure_keeps_its_style_outside_of_files() -> None:
    """Drawn by a notebook, its dollars stay dollars and its panels get their places."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    figure = pm.predict(RUN).plot().figure
    with mpl.rc_context({"text.usetex": False, "axes.grid": True}):
        figure.canvas.draw()
    assert figure.get_layout_engine() is None  # settled
    plt.close("all")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [("memry", "'memry' is no figure of a Prediction; did you mean memory?"), ("x", "known: cost, iteration, memory, ramp")],
)
def test_an_unknown_figure_is_an_input_error(kind: str, sentence: str) -> None:
    """Which names those that there are."""
    with pytest.raises(pm.InputError, match=sentence):
        pm.predict(RUN).plot(kind)


def test_what_has_no_figure_says_so() -> None:
    """A timeline is a trace."""
    with pytest.raises(pm.InputError, match="a Timeline has no figure"):
        pm.timeline(RUN, detail="passes").plot()


def test_without_matplotlib_plot_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sentence as of --figure."""
    monkeypatch.setitem(sys.modules, "perfmodel.report.figures.breakdown", None)
    with pytest.raises(pm.InputError, match="plot needs matplotlib"):
        pm.predict(RUN).plot()


def test_the_looks_are_where_results_look_for_them() -> None:
    """The name in frames.py is that of the module."""
    assert figures_of.__module__ == LOOKS
