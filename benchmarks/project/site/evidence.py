"""What the pages show of files that records of validation are kept in."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from perfmodel.benchmarks.project.site.fences import Fence, escaped, table

CONTACTS: Final = Path(__file__).resolve().parents[3] / "docs" / "first_contact.csv"
HEAD: Final = ("source", "table", "rows", "predicted", "median error", "90th percentile", "bias", "in the interval", "version")


def first_contact(fence: Fence) -> str:
    """The errors of each new source with the version that had never seen it."""
    with CONTACTS.open(encoding="utf-8", newline="") as file:
        return table(HEAD, [_contact(row) for row in csv.DictReader(file)])


def _contact(row: dict[str, str]) -> tuple[str, ...]:
    shares = [_percent(row[name]) for name in ("median_abs_error", "p90_abs_error", "bias")]
    table_words = row["table"].replace("_", " ") + ("" if row["scored"] == "yes" else ", context")
    return (
        escaped(row["source"]),
        table_words,
        row["rows"],
        row["predicted"],
        *shares,
        _whole(row["interval_coverage"]),
        row["version"],
    )


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f}&nbsp;%" if share else "-"


def _whole(share: str) -> str:
    return f"{100 * float(share):.0f}&nbsp;%" if share else "-"
