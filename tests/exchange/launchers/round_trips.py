"""Runs that are written as launch files, and what they are when the files are read again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from perfmodel import api
from perfmodel.exchange.launchers.registry import launch_file
from perfmodel.spec.run import Run

BASE: Final[Mapping[str, Any]] = {
    "name": "Some run",
    "cluster": "dgx-h100",
    "stack": "megatron-core",
    "sequence_length": 4096,
    "sharding": "zero1",
    "stages": [{"data_parallel": 8, "global_batch_size": 64, "tokens": "1T"}],
}
DEEPSEEK: Final[Mapping[str, Any]] = {
    "model": {"extends": "deepseek-v3", "multi_token_layers": 1},
    "pipeline_parallel": 4,
    "virtual_pipeline": 4,
    "pipeline_layout": "Et*4|(tttt|)*14tmL",
    "expert_parallel": 64,
    "recompute": "selective",
    "recompute_modules": "mla_up_proj moe_act",
    "stages": [{"data_parallel": 64, "global_batch_size": 2048, "tokens": "1T"}],
    "stack": {
        "extends": "megatron-core",
        "offers": {"recompute_modules": "mla_up_proj moe_act"},
        "experts": {"dispatcher": "hybridep", "overlap": "passes"},
        "host": {"graphed": "attention preprocess router shared_experts"},
    },
}


def read_again(run: Run, folder: Path, *, software: str = "megatron-core", stage: int | None = None) -> Run:
    """The run that the launch file of a run describes."""
    path = folder / "train.sh"
    path.write_text(launch_file(run, software, stage=stage))
    return api.load(str(path), {"cluster": "dgx-h100"})


def assert_same(run: Run, again: Run, stages: slice = slice(None)) -> None:
    """The same layouts, and the same predictions to rounding."""
    one = api.predict(run).stages[stages]
    other = api.predict(again).stages
    assert len(one) == len(other)
    for (stage, predicted), (stage_again, predicted_again) in zip(one, other, strict=True):
        assert (stage.data_parallel, stage.global_batch_size) == (stage_again.data_parallel, stage_again.global_batch_size)
        least = float(run.layout(stage).tokens_per_iteration)
        assert float(stage_again.tokens or 0) == pytest.approx(float(stage.tokens or 0), abs=least)
        for name in ("iteration_time_s", "mfu"):
            assert float(getattr(predicted_again, name)) == pytest.approx(float(getattr(predicted, name)), rel=1e-12)
        assert float(predicted_again.memory.total_bytes) == pytest.approx(float(predicted.memory.total_bytes), rel=1e-12)
