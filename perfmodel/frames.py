"""A result for notebooks: one line as text, a report as HTML, a figure, a data frame.

How a result looks is known above it, in perfmodel/report/notebook.py. It is found by its name when a notebook asks, as pandas
finds what plots its frames: no room that predicts knows or loads what prints and draws.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LOOKS: Final = "perfmodel.report.notebook"


class OneLine:
    """A value whose text is one line, however much it holds."""

    __slots__ = ()

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary}>"


class Tabular(OneLine):
    """A result that is a table: each row maps column names, with SI units in them, to plain values."""

    __slots__ = ()

    @property
    def summary(self) -> str:
        """How large the table is, where a result has nothing better to say.

        >>> class Ramp(Tabular):
        ...     def rows(self):
        ...         return [{"gpus": 768, "iteration_time_s": 0.57}]
        >>> Ramp()
        <Ramp: 1 row>
        """
        number = len(self.rows())
        return f"{number:,} row{'' if number == 1 else 's'}"

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table, all with the same columns in the same order."""
        raise NotImplementedError

    def to_pandas(self) -> pd.DataFrame:
        """The table as a data frame; needs pandas, which nothing else here loads.

        >>> class Ramp(Tabular):
        ...     def rows(self):
        ...         return [{"gpus": 768, "iteration_time_s": 0.57}, {"gpus": 1536, "iteration_time_s": 0.58}]
        >>> int(Ramp().to_pandas()["gpus"].sum())
        2304
        """
        frame: pd.DataFrame = import_module("pandas").DataFrame(self.rows())
        return frame

    def plot(self, kind: str = "") -> Axes:
        """Draw it with matplotlib, and return the axes (the first, of several panels).

        `kind` is one of the figures that this result has; without it the first. An unknown one is an InputError that names
        them. The figure is `axes.figure`; it has titles, a key and a source already, and is at its best unchanged.

        >>> from perfmodel import api
        >>> axes = api.predict("nemotron-4-15b").plot("memory")
        >>> axes.get_xlabel()
        'memory of one GPU [GiB]'
        """
        axes: Axes = import_module(LOOKS).drawn(self, kind)
        return axes

    def _repr_html_(self) -> str:
        shown: str = import_module(LOOKS).as_page_part(self)
        return shown
