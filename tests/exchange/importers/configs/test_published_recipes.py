"""Are launch scripts and NeMo configurations of published recipes the runs of their rows in the table of published runs?"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import yaml

from perfmodel import api
from perfmodel.evidence.measured_rows import MeasuredRun
from perfmodel.exchange.importers.registry import read_settings
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.exchange.tables.published_runs import read_measured_runs
from perfmodel.prediction import predict

Row = Mapping[str, str]
TABLE: Final = DATA / "published_runs.csv"
SOFTWARE: Final = "NVIDIA NeMo / Megatron-Core dgxc v2"
ROWS: Final = (  # a run of each recipe: its model, and where in the table its first row is from
    ("Nemotron-4 15B", "v24.11.1..v25.01.1"),
    ("Nemotron-4 15B", "v25.02..v25.03"),
    ("Nemotron-4 340B", "v24.11.1..v25.03"),
    ("Llama 3.1 8B", "v24.11.1..v25.01.1"),
    ("Llama 3.1 8B", "v25.02..v25.03"),
    ("Llama 3.1 70B", "v24.11.1..v25.01.1"),
    ("Llama 3.1 405B", "v24.11.1..v25.01.1"),
    ("Llama 3.1 405B", "v25.02..v25.03"),
)
LLAMA: Final = "--swiglu --normalization RMSNorm --position-embedding-type rope"
NEMOTRON: Final = "--squared-relu --apply-layernorm-1p --position-embedding-type rope --rotary-percent 0.5"


@cache
def table() -> tuple[tuple[Row, MeasuredRun], ...]:
    """The rows of the table with the runs that they are."""
    with TABLE.open(newline="") as file:
        rows = {row["run_id"]: row for row in csv.DictReader(file)}
    return tuple((rows[run.run_id], run) for run in read_measured_runs(TABLE).rows if run.run_id in rows)


def script(row: Row) -> str:
    """A launch script with the settings of a row, and all overlaps that these recipes switch on."""
    layers_of_a_piece = int(row["layers"]) // int(row["pipeline_parallel"]) // int(row["virtual_pipeline"])
    virtual = f"--num-layers-per-virtual-pipeline-stage {layers_of_a_piece}" if row["virtual_pipeline"] != "1" else ""
    fused = "export NVTE_FUSED_ATTN=0\n" if "NVTE_FUSED_ATTN=0" in row["notes"] else ""
    return f"""#!/bin/bash
{fused}NNODES={int(row["gpus"]) // int(row["gpus_per_node"])}
MODEL_ARGS=(
    --num-layers {row["layers"]} --hidden-size {row["hidden_size"]} --ffn-hidden-size {row["ffn_hidden_size"]}
    --num-attention-heads {row["attention_heads"]} --group-query-attention --num-query-groups {row["kv_heads"]}
    {LLAMA if "Llama" in row["model"] else NEMOTRON}
    --untie-embeddings-and-output-weights --disable-bias-linear --attention-dropout 0.0 --hidden-dropout 0.0
    --vocab-size {row["vocab_size"]} --seq-length {row["sequence_length"]} --max-position-embeddings {row["sequence_length"]}
)
torchrun --nnodes $NNODES --nproc-per-node {row["gpus_per_node"]} pretrain_gpt.py ${{MODEL_ARGS[@]}} \\
    --tensor-model-parallel-size {row["tensor_parallel"]} --pipeline-model-parallel-size {row["pipeline_parallel"]} \\
    --context-parallel-size {row["context_parallel"]} {virtual} {"--sequence-parallel" if row["sequence_parallel"] else ""} \\
    --micro-batch-size {row["micro_batch_size"]} --global-batch-size {row["global_batch_size"]} \\
    --bf16 {"--fp8-format hybrid" if row["precision"] == "fp8" else ""} \\
    {"--recompute-activations" if row["recompute"] == "selective" else ""} --use-distributed-optimizer \\
    --overlap-grad-reduce --overlap-param-gather --tp-comm-overlap --grad-reduce-in-bf16 --cross-entropy-loss-fusion
"""


def nemo(row: Row) -> str:
    """The same as a configuration of NeMo 1."""
    is_llama = "Llama" in row["model"]
    numbers = {
        "num_layers": "layers",
        "hidden_size": "hidden_size",
        "ffn_hidden_size": "ffn_hidden_size",
        "num_attention_heads": "attention_heads",
        "num_query_groups": "kv_heads",
        "encoder_seq_length": "sequence_length",
        "tensor_model_parallel_size": "tensor_parallel",
        "pipeline_model_parallel_size": "pipeline_parallel",
        "virtual_pipeline_model_parallel_size": "virtual_pipeline",
        "context_parallel_size": "context_parallel",
        "micro_batch_size": "micro_batch_size",
        "global_batch_size": "global_batch_size",
        "override_vocab_size": "vocab_size",
    }
    model = {key: int(row[column]) for key, column in numbers.items()} | {
        "activation": "fast-swiglu" if is_llama else "squared-relu",
        "normalization": "rmsnorm" if is_llama else "layernorm1p",
        "position_embedding_type": "rope",
        "rotary_percentage": 1.0 if is_llama else 0.5,
        "bias": False,
        "share_embeddings_and_output_weights": False,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "sequence_parallel": row["sequence_parallel"] == "yes",
        "activations_checkpoint_granularity": "selective" if row["recompute"] == "selective" else None,
        "fp8": row["precision"] == "fp8",
        "fp8_hybrid": True,
        "ub_tp_comm_overlap": True,
        "overlap_p2p_comm": True,
        "cross_entropy_loss_fusion": True,
        "optim": {
            "name": "distributed_fused_adam",
            "overlap_grad_sync": True,
            "overlap_param_sync": True,
            "grad_sync_dtype": "bf16",
        },
    }
    trainer = {"num_nodes": int(row["gpus"]) // int(row["gpus_per_node"]), "devices": 8, "precision": "bf16"}
    return yaml.safe_dump({"trainer": trainer, "model": model})


@pytest.mark.parametrize(("file", "written"), [("train.sh", script), ("nemo.yaml", nemo)])
@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize(("model", "version"), ROWS)
def test_recipes_predict_what_their_rows_predict(
    tmp_path: Path, file: str, written: Callable[[Row], str], precision: str, model: str, version: str
) -> None:
    """To 1e-9, with the cluster of the row; a variable of the environment, as Nemotron-4 340B has one, is in scripts alone."""
    found = [
        (row, run)
        for row, run in table()
        if (row["model"], row["software"], row["precision"])
        == (model, f"NVIDIA NeMo / Megatron-Core dgxc {version}", precision)
    ]
    row, measured = found[0]
    assert measured.run is not None
    (tmp_path / file).write_text(written(row))
    extra = {"stack.fusion.attention_library": "flash2"} if file == "nemo.yaml" and "NVTE_FUSED_ATTN=0" in row["notes"] else {}
    mapping = read_settings(tmp_path / file, "runs") | {"cluster": mapping_of(measured.run.cluster)}
    again = api.predict(mapping, extra).stages[0][1]
    expected = predict(measured.run).stages[0][1]
    assert float(again.iteration_time_s) == pytest.approx(float(expected.iteration_time_s), rel=1e-9)
    assert float(again.memory.total_bytes) == pytest.approx(float(expected.memory.total_bytes), rel=1e-9)
