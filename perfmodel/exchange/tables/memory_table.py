"""How a table of layouts that fitted or ran out of memory is read: CSV, one layout a row, blank where its source does not say.

Such a table is one of published runs without times (published_runs.py): columns mean the same, blanks take the same defaults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, shown
from perfmodel.evidence.measured_rows import MeasuredFit, MeasuredTable
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.tables.csv_tables import read_table
from perfmodel.exchange.tables.published_runs import COLUMNS, described_run

# columns that do not matter for memory, or that data/memory_columns.yaml stands for
UNNEEDED: Final = ("run_id", "gpus_per_node", "internode_gbit_per_s_per_gpu", "stack", "software", "iteration_time_s")
FIT_COLUMNS: Final = (*(column for column in COLUMNS if column not in UNNEEDED), "attention_kernel", "fits")
LABELS: Final = ("recompute", "attention_kernel_detail")  # columns that sort rows into groups, beside their stack


def read_measured_fits(path: Path) -> MeasuredTable[MeasuredFit]:
    """The layouts of the table at `path`. Errors: InputError for what is no such table."""
    words = read_mapping(DATA / "memory_columns.yaml")
    presets = read_mapping(DATA / "csv_columns.yaml") | {"kernels": words["kernels"]}
    return read_table(path, FIT_COLUMNS, lambda line, cells: _measured_fit(cells, words, presets, line=line))


def _measured_fit(cells: dict[str, str], words: Mapping[str, Any], presets: Mapping[str, Any], *, line: int) -> MeasuredFit:
    missing = {column: cells.get(column, "") for column in UNNEEDED}
    missing["run_id"] = missing["run_id"] or f"line {line}"
    missing["stack"] = missing["stack"] or _stack(cells, words)
    described = described_run(cells | missing, presets)
    return MeasuredFit(
        run_id=missing["run_id"],
        source=cells["source"],
        labels={"stack": missing["stack"]} | {name: cells.get(name, "") for name in LABELS},
        model_name=described.model.name,
        fits=_fits(cells["fits"]),
        run=described.run,
        reason=described.reason,
        assumptions=described.assumptions,
        warning=described.warning,
    )


def _stack(cells: Mapping[str, str], words: Mapping[str, Any]) -> str:
    entry = next(
        each for each in words["stacks"] if all(re.search(each[key], cells.get(key, "")) for key in each if key != "stack")
    )
    return str(entry.get("stack", ""))


def _fits(cell: str) -> bool:
    if cell.lower() not in ("yes", "no"):
        raise InputError(f"{shown(cell)} is not yes or no", key="fits")
    return cell.lower() == "yes"
