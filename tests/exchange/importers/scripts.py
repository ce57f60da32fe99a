"""Small launch scripts that tests change word by word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfmodel.exchange.importers.registry import conversion_at
from perfmodel.exchange.translation.conversion import Conversion

LLAMA = """#!/bin/bash
#SBATCH --nodes=4
#SBATCH --gpus-per-node=8
export CUDA_DEVICE_MAX_CONNECTIONS=1
GPUS_PER_NODE=8
NUM_NODES=${NUM_NODES:-4}
DISTRIBUTED_ARGS=(
    --nproc_per_node $GPUS_PER_NODE
    --nnodes $NUM_NODES  # all of them
)
MODEL_ARGS=(
    --num-layers 32
    --hidden-size 4096
    --ffn-hidden-size 14336
    --num-attention-heads 32
    --group-query-attention
    --num-query-groups 8
    --seq-length $((1024 * 8))
    --max-position-embeddings 8192
    --position-embedding-type rope
    --swiglu --normalization RMSNorm --untie-embeddings-and-output-weights --disable-bias-linear
    --attention-dropout 0 --hidden-dropout 0.0
    --vocab-size 128256
)
TRAINING=" --micro-batch-size 1 --global-batch-size 128 --train-samples 1000000 --bf16 --lr 1e-4 \\
  --tensor-model-parallel-size 2 --sequence-parallel --use-distributed-optimizer"
torchrun ${DISTRIBUTED_ARGS[@]} pretrain_gpt.py "${MODEL_ARGS[@]}" $TRAINING EXTRA
"""
SMALL = (
    "torchrun --nproc-per-node 8 pretrain_gpt.py --num-layers 4 --hidden-size 1024 --num-attention-heads 16 "
    "--seq-length 2048 --micro-batch-size 2 EXTRA\n"
)


def converted(folder: Path, text: str, name: str = "train.sh") -> Conversion:
    """What becomes of a file with this text."""
    path = folder / name
    path.write_text(text)
    found = conversion_at(path)
    assert found is not None, "recognised by nothing"
    return found


def script(folder: Path, extra: str = "", text: str = SMALL) -> Conversion:
    """A small script with more flags."""
    return converted(folder, text.replace("EXTRA", extra))


def run_of(found: Conversion) -> Mapping[str, Any]:
    """The run of a conversion that has one."""
    assert found.run is not None
    return found.run
