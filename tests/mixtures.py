"""A mixture of experts that tests share: DeepSeek-V3 on 256 GPUs of GB200 NVL72, as NVIDIA lays it out."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from perfmodel.exchange.run_files import RunCandidate, read_candidates
from perfmodel.prediction import StagePrediction, predict

DEEPSEEK: Final[dict[str, Any]] = {
    "name": "DeepSeek-V3",
    "model": "deepseek-v3",
    "cluster": "gb200-nvl72",
    "stack": "megatron-bridge",
    "precision": "fp8",
    "tensor_parallel": 1,
    "pipeline_parallel": 4,
    "virtual_pipeline": 4,
    "expert_parallel": 64,
    "micro_batch_size": 1,
    "sequence_length": 4096,
    "recompute": "selective",
    "recompute_modules": ["mla_up_proj"],
    "stages": [{"data_parallel": 64, "global_batch_size": 512}],
}


@cache
def candidate(*settings: str) -> RunCandidate:
    """The run with some settings changed."""
    return read_candidates(DEEPSEEK, settings)[0]


@cache
def predicted(*settings: str) -> StagePrediction:
    """What is predicted of its one stage."""
    return predict(candidate(*settings).run).stages[0][1]
