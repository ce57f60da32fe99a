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


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (GPT, ("tensor_parallel=2", "pipeline_parallel=2")),
        (LLAMA, ("tensor_parallel=1", "pipeline_parallel=2", "virtual_pipeline=2", "recompute=full")),
        (GPT, ("tensor_parallel=1", "pipeline_parallel=4", "recompute=full", "recompute_layers=1")),
    ],
    ids=str,
)
def test_every_stage_of_a_pipeline_is_counted(model: str, settings: tuple[str, ...]) -> None:
    """Tied embeddings on both ends among them, stages of unequal length, and the messages that each stage sends."""
    six = model.replace("layers: 2", "layers: 6")
    run = read_candidates("nemotron-4-15b", (six, "sequence_length=256", STAGE, "micro_batch_size=1", *settings))[0].run
    counts = dry_run(run, run.stages[0])
    assert [each for each in counts if not each.equal] == []
    messages = {each.pipeline_stage for each in counts if each.what.startswith("point_to_point")}
    assert messages == set(range(1, 1 + int(run.layout(run.stages[0]).pipeline_parallel)))


def test_what_the_model_does_not_run_is_refused() -> None:
    """And nothing is left behind: the next dry run works."""
    run = read_candidates("nemotron-4-15b", ("context_parallel=2",))[0].run
    with pytest.raises(NotSupportedError, match="the reference model runs context_parallel 1, not 2"):
        dry_run(run, run.stages[0])
    plain = read_candidates("nemotron-4-15b", (LLAMA, "sequence_length=256", STAGE, "tensor_parallel=2"))[0].run
    assert all(each.equal for each in dry_run(plain, plain.stages[0]))
