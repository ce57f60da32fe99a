"""Draws predicted against measured iteration times over the shipped runs: docs/accuracy.png, the picture of the README.

python -m benchmarks.accuracy
"""

from __future__ import annotations

from pathlib import Path

from perfmodel.evidence.validate import compare
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.published_runs import read_measured_runs
from perfmodel.report.figures import accuracy_figure

PICTURE = Path(__file__).parent.parent / "docs" / "accuracy.png"


def main() -> None:
    """Draw it."""
    comparisons = [compare(each) for each in read_measured_runs(DATA / "published_runs.csv")]
    PICTURE.parent.mkdir(exist_ok=True)
    accuracy_figure(comparisons).savefig(PICTURE, dpi=120, metadata={"Software": None})
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
