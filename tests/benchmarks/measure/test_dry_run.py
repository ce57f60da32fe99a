"""Does the reference model, without any device, do on each rank of a whole cluster what the forecast counts?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.benchmarks.measure.steps.dry_run import dry_run
from perfmodel.errors import NotSupportedError
from perfmodel.exchange.run_files import read_candidates

SMALL = (
    "model={name: small, layers: 2, hidden_size: 256, attention_heads: 8, kv_heads: 4, head_size: 32, "
    "ffn_hidden_size: 512, activation: %s, norm: %s, position: %s, max_positions: 512, biases: %s, tied_embeddings: %s, "
    "vocab_size: 1000}"
)
GPT = SMALL % ("gelu", "layernorm", "learned", "true", "true")
LLAMA = SMALL % ("swiglu", "rmsnorm", "rotary", "false", "false")
STAGE = "stages=[{data_parallel: 4, global_batch_size: 8}]"


@pytest.mark.slow
def test_the_ramp_of_the_central_run_is_counted_exactly() -> None:
    """768 to 2,304 GPUs: parameters, bytes held, FLOPs, calls and bytes of every kind of collective.

    All micro-batches of each stage over two layers, and one micro-batch of the last stage over all layers.
    """
    run = read_candidates("nemotron-4-15b")[0].run
    shallow = replace(run, model=replace(run.model, layers=2))
    once = replace(run.stages[-1], global_batch_size=run.stages[-1].data_parallel)
    for each, stage in [*((shallow, stage) for stage in run.stages), (run, once)]:
        counts = dry_run(each, stage)
        assert [each.what for each in counts if not each.equal] == []
        assert {"parameters", "hardware FLOPs", "reduce_scatter of 8 ranks, calls"} <= {each.what for each in counts}


@pytest.mark.parametrize("model", [GPT, LLAMA], ids=["gpt", "llama"])
@pytest.mark.parametrize(
    "settings",
    [
        ("tensor_parallel=4", "sequence_parallel=true"),
        ("tensor_parallel=4", "sequence_parallel=false"),
        ("tensor_parallel=1", "sharding=none"),
        ("tensor_parallel=2", "recompute=full"),
        ("tensor_parallel=2", "recompute=full", "recompute_layers=1"),
        ("tensor_parallel=2", "recompute=selective", "micro_batch_size=2"),
    ],
    ids=" ".join,
)
def test_other_layouts_and_models_are_too(model: str, settings: tuple[str, ...]) -> None:
    """With biases, tied and padded embeddings; with and without sequence parallelism, sharding and recompute."""
    run = read_candidates("nemotron-4-15b", (model, "sequence_length=256", STAGE, "micro_batch_size=1", *settings))[0].run
    assert [each for each in dry_run(run, run.stages[0]) if not each.equal] == []


def test_what_the_model_does_not_run_is_refused() -> None:
    """And nothing is left behind: the next dry run works."""
    run = read_candidates("nemotron-4-15b", ("pipeline_parallel=2",))[0].run
    with pytest.raises(NotSupportedError, match="the reference model runs pipeline_parallel 1, not 2"):
        dry_run(run, run.stages[0])
    plain = read_candidates("nemotron-4-15b", (LLAMA, "sequence_length=256", STAGE, "tensor_parallel=2"))[0].run
    assert all(each.equal for each in dry_run(plain, plain.stages[0]))
