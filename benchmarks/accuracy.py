"""Draws predicted against measured iteration times over the shipped runs: docs/accuracy.png, the picture of the README.

python -m benchmarks.accuracy (the same as perfmodel validate --figure docs/accuracy.png, without the tables)
"""

from __future__ import annotations

from pathlib import Path

from perfmodel.evidence.validate import compare
from perfmodel.exchange.output import write_bytes
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.published_runs import read_measured_runs
from perfmodel.report.figures import accuracy_figure, picture

PICTURE = Path(__file__).parent.parent / "docs" / "accuracy.png"


def main() -> None:
    """Draw it."""
    figure = accuracy_figure([compare(each) for each in read_measured_runs(DATA / "published_runs.csv")])
    PICTURE.parent.mkdir(exist_ok=True)
    write_bytes(PICTURE, picture(figure, "png"))
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
