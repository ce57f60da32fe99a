"""Reads what nccl-tests print (all_reduce_perf, all_gather_perf, ...) into records of collectives.

    python -m perfmodel.benchmarks.measure.kernels.nccl_tests all_reduce.txt all_gather.txt --output records.jsonl

A text may hold several tests; perfmodel/exchange/measured/nccl_tests.py says what a row of it means.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.evidence.steps.records import Record
from perfmodel.exchange.measured.nccl_tests import PROGRAMS, NcclRow, Reader, program_named
from perfmodel.exchange.output import write_text

PRECISIONS: Final = {"float": "fp32", "half": "fp16", "bfloat16": "bf16"}


def _record(row: NcclRow, place: str) -> Record:
    """One row as a record. Errors: InputError where the text does not say what was measured."""
    if not row.hosts:
        raise InputError(f"{place}: no '# Rank' line says how many ranks there were")
    if not row.operator:
        raise InputError(f"{place}: nothing says which test it was; --operator all_reduce would")
    precision = {"precision": PRECISIONS[row.number_type]} if row.number_type in PRECISIONS else {}
    return Record(
        kind="collective",
        sizes={"payload_bytes": row.payload_bytes, "ranks": len(row.hosts), "nodes": len(set(row.hosts))},
        labels={"operator": row.operator, "backend": "nccl"} | precision,
        seconds=row.seconds,
        spread=0.0,  # a mean is printed, and not how far its parts were from it
        repeats=row.repeats,
        provenance={
            "gpu": row.gpu,
            "software": row.library,
            "date": datetime.now(UTC).date().isoformat(),
            "command": f"python -m perfmodel.benchmarks.measure.kernels.nccl_tests {place}",
        },
    )


def read_nccl_tests(path: Path, *, operator: str = "") -> list[Record]:
    """The records of the text at `path`. Where it does not say which test it is of, `operator` does, or its name."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or 'it is no file').lower()}") from None
    rows = Reader(str(path), operator=operator or program_named(path.name)).read(text)
    return [_record(row, str(path)) for row in rows]


def main() -> None:
    """Convert; one sentence when it cannot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs="+", metavar="FILE")
    parser.add_argument(
        "--operator", choices=sorted(PROGRAMS.values()), default="", help="where nothing says which test it was"
    )
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE")
    chosen = parser.parse_args()
    try:
        records = [record for path in chosen.texts for record in read_nccl_tests(path, operator=chosen.operator)]
        write_text(chosen.output, "".join(json.dumps(each.document()) + "\n" for each in records))
    except PerfmodelError as error:
        print(f"perfmodel: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"wrote {len(records)} records to {chosen.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
