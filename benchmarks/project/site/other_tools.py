"""What other tools say of some cases, from a file, beside what perfmodel says of them now."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Final

from perfmodel.benchmarks.project.site.fences import Fence, table
from perfmodel.benchmarks.project.site.keys import DOCS
from perfmodel.benchmarks.project.start_up import prediction_s
from perfmodel.evidence.leave_out import left_out
from perfmodel.evidence.time_scores import compare_time
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.tables.fitted_priors import fitted_priors
from perfmodel.exchange.tables.published_runs import read_measured_runs
from perfmodel.prediction import predict

OURS: Final = "perfmodel"
TABLE_5: Final = "arXiv:2205.05198"
TIMED: Final = 30


def other_tools(fence: Fence) -> str:
    """A table: a row a case, a column a tool."""
    cases: Mapping[str, Mapping[str, str]] = read_mapping(DOCS / fence.body.strip())["cases"]
    tools = [name for name in next(iter(cases.values())) if name != "case"]
    rows = [
        (each["case"], each.get(OURS) or WORKED_OUT[name](), *(each[tool] for tool in tools)) for name, each in cases.items()
    ]
    return table(("", OURS, *tools), rows)


def ramp() -> str:
    """Iteration times of the three stages of Nemotron-4 15B [s]."""
    stages = predict(read_candidates("nemotron-4-15b")[0].run).stages
    return ", ".join(f"{float(predicted.iteration_time_s):.2f}" for _, predicted in stages)


def table_5() -> str:
    """Mean errors on the runs of Table 5, as shipped and with their source left out."""
    rows = [row for row in read_measured_runs(DATA / "published_runs.csv").rows if row.source.startswith(TABLE_5)]
    known = [compare_time(row) for row in rows]
    errors = (
        statistics.fmean(abs(each.relative_error or 0.0) for each in compared)
        for compared in (known, left_out(known, fitted_priors()))
    )
    return " and ".join(f"{100 * error:.1f} %" for error in errors)


def in_process() -> str:
    """The median time of one prediction [ms]."""
    return f"{1e3 * prediction_s(repeats=TIMED):.1f}"


WORKED_OUT: Final[Mapping[str, Callable[[], str]]] = {"ramp": ramp, "table_5": table_5, "in_process": in_process}
