"""Rows of a table of layouts that fitted or ran out of memory, for tests that write one."""

from __future__ import annotations

import csv
from pathlib import Path

ROW = {
    "source": "arXiv:2311.05610 some.xlsx", "model": "Llama-arch 13B", "layers": "40", "hidden_size": "5120",
    "attention_heads": "40", "kv_heads": "40", "ffn_hidden_size": "13824", "activation": "swiglu", "vocab_size": "128000",
    "sequence_length": "2048", "gpu": "a100-sxm-80gb", "gpus": "64", "tensor_parallel": "2", "pipeline_parallel": "2",
    "virtual_pipeline": "1", "data_parallel": "16", "context_parallel": "1", "sequence_parallel": "", "micro_batch_size": "1",
    "global_batch_size": "2048", "recompute": "full", "precision": "bf16", "attention_kernel": "flash", "fits": "yes",
    "sharding": "zero1", "attention_kernel_detail": "flash_attention2",
}  # fmt: skip
TOO_LARGE = {"micro_batch_size": "128", "recompute": "none"}  # no GPU holds it


def write_fits(path: Path, *rows: dict[str, str]) -> Path:
    """A table whose rows differ from ROW in some cells."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROW))
        writer.writeheader()
        writer.writerows(ROW | row for row in rows)
    return path
