"""Which mixers do rows of hybrids get, whose columns state none?"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from perfmodel.evidence.measured_rows import MeasuredRun
from perfmodel.exchange.tables.published_runs import read_measured_runs

NANO = {
    "run_id": "one", "source": "here", "model": "Nemotron-3-Nano-30B-A3B", "layers": "52", "hidden_size": "2688",
    "attention_heads": "32", "kv_heads": "2", "ffn_hidden_size": "", "activation": "squared-relu", "vocab_size": "131072",
    "sequence_length": "8192", "gpu": "h100-sxm-80gb", "gpus": "16", "gpus_per_node": "8", "internode_gbit_per_s_per_gpu": "",
    "tensor_parallel": "1", "pipeline_parallel": "1", "virtual_pipeline": "1", "context_parallel": "1", "data_parallel": "16",
    "sequence_parallel": "no", "sharding": "zero1", "micro_batch_size": "1", "global_batch_size": "16", "recompute": "none",
    "precision": "bf16", "stack": "megatron-core", "software": "", "iteration_time_s": "0.66", "experts": "128",
    "experts_per_token": "6", "moe_ffn_hidden_size": "1856", "shared_experts": "1", "shared_ffn_hidden_size": "3712",
    "moe_layers": "23", "expert_parallel": "8", "attention_type": "hybrid gqa+mamba2", "head_size": "128", "mtp_layers": "0",
    "cuda_graphs": "",
}  # fmt: skip
SUPER = {
    "model": "Nemotron-3-Super-120B-A12B", "layers": "88", "hidden_size": "4096", "experts": "512", "experts_per_token": "22",
    "moe_ffn_hidden_size": "2688", "shared_ffn_hidden_size": "5376", "moe_layers": "40", "mtp_layers": "2",
}  # fmt: skip
QWEN = {
    "model": "Qwen3-Next-80B-A3B", "layers": "48", "hidden_size": "2048", "attention_heads": "16", "activation": "swiglu",
    "vocab_size": "151936", "experts": "512", "experts_per_token": "10", "moe_ffn_hidden_size": "512",
    "shared_ffn_hidden_size": "512", "moe_layers": "48", "attention_type": "hybrid gqa + gated deltanet 1:3",
    "head_size": "256", "mtp_layers": "",
}  # fmt: skip


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """The measured run of a table of one row, which differs from NANO in some cells."""

    def _read(**cells: str) -> MeasuredRun:
        path = tmp_path / "runs.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(NANO))
            writer.writeheader()
            writer.writerow(NANO | cells)
        (row,) = read_measured_runs(path).rows
        return row

    return _read


def test_mixers_come_from_the_preset_of_the_model(read: Any) -> None:
    """With the pattern of layers, and without layers that the row does not have."""
    nano, deeper, qwen = (read(**cells) for cells in ({}, SUPER, QWEN))
    assert [each.reason for each in (nano, deeper, qwen)] == ["", "", ""]
    assert (nano.model.state_space.heads, nano.model.multi_token_layers) == (64, 0)
    assert (deeper.model.mixture.latent_size, deeper.model.multi_token_layers) == (1024, 2)
    assert deeper.model.multi_token_parts == ("full", "experts")
    assert (qwen.model.delta.value_heads, qwen.model.attention_gate, qwen.model.multi_token_layers) == (32, True, 1)


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ({"layers": "56"}, "layers: 56 is not the 52 of nemotron-3-nano (layers)"),
        ({"experts_per_token": "8"}, "experts_per_token: 8 is not the 6 of nemotron-3-nano (mixture.experts_per_token)"),
        ({"moe_layers": "24"}, "moe_layers: 24 is not the 23 of nemotron-3-nano"),
    ],
)
def test_a_row_that_is_of_another_model_is_refused(read: Any, cells: dict[str, str], sentence: str) -> None:
    """With the number that the preset has."""
    row = read(**cells)
    assert row.run is None
    assert row.reason.startswith(f"this layout is refused: {sentence}")


def test_a_hybrid_without_a_preset_is_not_supported(read: Any) -> None:
    """No column says what its mixers are."""
    assert "the mixers of Jamba 1.5 are not known" in read(model="Jamba 1.5").reason


def test_graphs_of_mamba_are_those_of_mixers(read: Any) -> None:
    """As Megatron-LM names them."""
    row = read(cuda_graphs="transformer_engine:attn,mamba")
    assert row.run.stack.host.graphed == ("attention", "mixer")
