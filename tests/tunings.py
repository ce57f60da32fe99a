"""Fine-tuning runs as tests ask for them: Llama 3.1 8B on one A100 unless they say otherwise."""

from __future__ import annotations

from typing import Any

from perfmodel.exchange.run_files import read_candidates
from perfmodel.spec.run import Run
from perfmodel.spec.setup import Setup

RUN: dict[str, Any] = {
    "name": "tuning", "model": "llama-3.1-8b", "cluster": "dgx-a100", "stack": "hf-peft-plain", "precision": "bf16",
    "training": "lora", "sharding": "none", "recompute": "full", "micro_batch_size": 1, "sequence_length": 2048,
    "model.vocab_padding_multiple": 1,
}  # fmt: skip


def tuned_run(*, gpus: int = 1, micro_batches: int = 1, **settings: Any) -> Run:
    """A run with other settings, by key or key path with __ for a dot."""
    changed = RUN | {key.replace("__", "."): value for key, value in settings.items()}
    batch = int(changed["micro_batch_size"]) * gpus * micro_batches
    plain = {key: value for key, value in changed.items() if "." not in key}
    paths = [(key, value) for key, value in changed.items() if "." in key]
    plain["stages"] = [{"data_parallel": gpus, "global_batch_size": batch}]
    return read_candidates(plain, paths)[0].run


def tuned_setup(**settings: Any) -> Setup:
    """What the only stage of such a run is counted for."""
    run = tuned_run(**settings)
    return run.setup(run.stages[0])
