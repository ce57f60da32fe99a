"""Does the picture of predicted against measured times show every row, by stack, with its band?"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from perfmodel.errors import InputError
from perfmodel.evidence.validate import Comparison
from perfmodel.report.figures import BAND, accuracy_figure, picture
from tests.comparisons import compared


def test_each_stack_has_its_colour_and_rows() -> None:
    """The legend counts them."""
    (axes,) = accuracy_figure(compared()).axes
    stacks = Counter(c.measured.labels["stack"] for c in compared() if c.predicted_s is not None)
    legend = axes.get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [*(f"{name} ({rows})" for name, rows in sorted(stacks.items(), key=lambda s: (-s[1], s[0]))), "within 10 %"]
    clouds = axes.collections[1:]  # the first is the band
    assert [np.shape(cloud.get_offsets())[0] for cloud in clouds] == sorted(stacks.values(), reverse=True)
    assert len({str(cloud.get_facecolor()) for cloud in clouds}) == len(stacks)


def test_the_band_is_10_percent_to_either_side() -> None:
    """Of the measured time, over the whole axis."""
    (axes,) = accuracy_figure(compared()).axes
    low, high = axes.get_xlim()
    assert axes.get_ylim() == (low, high)
    x, y = np.asarray(axes.collections[0].get_paths()[0].vertices, dtype=float).T
    assert set(np.round(y / x, 6)) == {1 - BAND, 1 + BAND}
    assert set(x) == {low, high}


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_rows_give_the_same_picture(kind: str) -> None:
    """Byte for byte: no date, no random names."""
    assert picture(accuracy_figure(compared()), kind) == picture(accuracy_figure(compared()), kind)


def test_there_is_no_picture_of_nothing() -> None:
    """A row that is not covered is no point."""
    uncovered = [Comparison(measured=c.measured) for c in compared()[:3]]
    with pytest.raises(InputError, match="nothing to draw"):
        accuracy_figure(uncovered)
