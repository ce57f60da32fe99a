"""A result that is a table: rows for files, a data frame for notebooks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class Tabular:
    """A result that is a table: each row maps column names, with SI units in them, to plain values."""

    __slots__ = ()

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
