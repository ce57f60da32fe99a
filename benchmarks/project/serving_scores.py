"""What measured servers say of errors: `python -m perfmodel.benchmarks.project.serving_scores TABLE.csv`.

Scores a table of serving runs as `perfmodel validate` does and writes perfmodel/data/serving_evidence.yaml, from which
intervals of forecasts take what uncertain numbers do not explain.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from perfmodel.evidence.serving.scores import compare_serving, lacks
from perfmodel.evidence.widths import estimated_widths
from perfmodel.exchange.output import write_text
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.tables.serving_runs import read_serving_runs
from perfmodel.spec.serving.evidence import ServingEvidence

HEAD = """# Written by python -m perfmodel.benchmarks.project.serving_scores
# Half widths of 90 % intervals of ln(measured / predicted) beyond uncertain numbers, by kind, class of model, and how
# requests run together; then the rows and publications behind them (perfmodel/evidence/widths.py).
name: Measured servers
source: estimated on {day} on {rows} scored measurements of {sources} publications of {table}
cells:
"""


def main(table: Path) -> None:
    """Estimate the discrepancies on a table, and write them."""
    nothing = ServingEvidence(name="nothing", cells={})
    comparisons = list(compare_serving(read_serving_runs(table).rows, nothing))
    scored = [each for each in comparisons if each.is_scored]
    sources = len({each.publication for each in scored})
    text = HEAD.format(day=datetime.now(UTC).date(), rows=f"{len(scored):,}", sources=sources, table=table.name)
    for cell, figures in sorted(estimated_widths(lacks(comparisons)).items()):
        text += f"  {cell}: {' '.join(f'{figure:g}' for figure in figures)}\n"
    write_text(DATA / "serving_evidence.yaml", text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
