"""A table of measured runs whose rows differ from one in some cells."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from perfmodel.evidence.measured_rows import MeasuredRun, MeasuredTable
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.tables.published_runs import read_measured_runs

ROW = {
    "run_id": "one", "source": "here", "model": "Llama 3.1 8B", "layers": "32", "hidden_size": "4096", "attention_heads": "32",
    "kv_heads": "8", "ffn_hidden_size": "14336", "activation": "swiglu", "vocab_size": "128256", "sequence_length": "8192",
    "gpu": "h100-sxm-80gb", "gpus": "8", "gpus_per_node": "8", "tensor_parallel": "1", "data_parallel": "8",
    "micro_batch_size": "1", "global_batch_size": "128", "precision": "bf16", "stack": "megatron-core",
    "iteration_time_s": "60.2",
}  # fmt: skip


@pytest.fixture
def read_all(tmp_path: Path) -> Any:
    """The measured runs of a table whose rows differ from ROW in some cells."""
    with (DATA / "published_runs.csv").open(newline="") as file:
        header = next(csv.reader(file))

    def _read(*rows: dict[str, str]) -> MeasuredTable[MeasuredRun]:
        path = tmp_path / "runs.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, header, restval="")
            writer.writeheader()
            writer.writerows(ROW | row for row in rows)
        return read_measured_runs(path)

    return _read


@pytest.fixture
def read(read_all: Any) -> Any:
    """Those of its rows that can be read."""
    return lambda *rows: read_all(*rows).rows
