"""Do intervals keep what they say: the share of measurements inside them, over the share that they state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from perfmodel import __version__
from perfmodel.errors import InputError
from perfmodel.evidence.interval_scores import Reliability
from perfmodel.report.figures.drawing.palette import BLUE, MUTED, VERMILION
from perfmodel.report.figures.drawing.style import TEXT, Drawing, grid, picture, styled

__all__ = ["picture", "reliability_figure"]

SQUARE: Final = 330.0  # points
LOWEST: Final = 40.0  # of both axes, %
BESIDE: Final = {"each row weighing one": (0, 7), "each source weighing one": (0, -13)}  # where numbers stand at their points


@styled
def reliability_figure(found: Reliability | None, *, what: str) -> Drawing:
    """Stated against observed coverage, over rows and with each source weighing one; above the diagonal is too careful.

    Errors: InputError when no row is predicted.
    """
    if found is None:
        raise InputError("no row is predicted: there is nothing to draw")
    curves = {"each row weighing one": (found.rows, BLUE, "o"), "each source weighing one": (found.by_source, VERMILION, "s")}
    drawing = Drawing(
        title="Measurements inside intervals, over what the intervals state",
        subtitle=what,
        plot_height=SQUARE,
        description="; ".join(f"{name}: {_told(shares)}" for name, (shares, _, _) in curves.items()),
    )
    axes = drawing.subplots()
    axes.plot((LOWEST, 100.0), (LOWEST, 100.0), color=MUTED, linewidth=0.8, linestyle="--", zorder=0.5)
    entries = []
    for name, (shares, colour, marker) in curves.items():
        stated, observed = ([100.0 * each for each in values] for values in (shares.keys(), shares.values()))
        (line,) = axes.plot(stated, observed, color=colour, marker=marker, markersize=5, linewidth=1.6, markeredgewidth=0)
        drawing.hover(line, f"{name}: {_told(shares)}")
        for at, value in zip(stated, observed, strict=True):
            axes.annotate(
                f"{value:.0f}", (at, value), BESIDE[name], textcoords="offset points", ha="center", fontsize=TEXT, color=colour
            )
        entries.append((line, name))
    axes.set_xlim(LOWEST, 100.0)
    axes.set_ylim(LOWEST, 104.0)
    axes.set_xticks([100.0 * level for level in found.rows])
    axes.set_xlabel("stated coverage [%]")
    axes.set_ylabel("measurements inside [%]")
    grid(axes, "both")
    drawing.key(entries)
    drawing.source_line(
        f"perfmodel {__version__}", "on the dashed line intervals are what they say, above it they are too wide"
    )
    return drawing


def _told(shares: Mapping[float, float]) -> str:
    return ", ".join(f"{100 * observed:.0f} % in {100 * stated:.0f} %" for stated, observed in shares.items())
