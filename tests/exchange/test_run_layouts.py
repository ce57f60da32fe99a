"""Are runs on every axis read from their keys and predicted, and those that cannot exist refused?"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.spec.run import Run


def read(*overrides: str) -> Run:
    """The central preset with overrides."""
    return read_candidates("nemotron-4-15b", overrides)[0].run


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["pipeline_parallel=4"], ["pipeline_bubble_s", "pipeline_parallel_exposed_s"]),
        (["pipeline_parallel=4", "virtual_pipeline=2"], ["pipeline_bubble_s"]),
        (["pipeline_parallel=4", "pipeline_schedule=zb-1p"], []),
        (["context_parallel=2", "stack.overlap.context_parallel_exchange=all_gather"], ["context_parallel_exposed_s"]),
        (["sharding=zero2"], ["data_parallel_exposed_s"]),
        (["sharding=zero3"], ["data_parallel_exposed_s"]),
        (["sharding=hsdp", "data_parallel_replicas=12"], ["data_parallel_exposed_s"]),
        (["recompute=full", "recompute_layers=4"], []),
    ],
)
def test_a_run_on_any_axis_is_predicted(overrides: list[str], parts: list[str]) -> None:
    """It takes a time of its own, with parts that the run as it stands has none, or less, of."""
    (_, plain), (_, changed) = (predict(read(*each)).stages[0] for each in ([], overrides))
    assert changed.iteration_time_s != plain.iteration_time_s
    for part in parts:
        assert getattr(changed.breakdown, part) > getattr(plain.breakdown, part)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["virtual_pipeline=2"], "virtual_pipeline: 2 pieces a stage need more than one pipeline stage"),
        (["pipeline_parallel=40"], "pipeline_parallel: 40 pieces of the pipeline are more than 32 layers"),
        (["pipeline_schedule=zb-h2"], "pipeline_schedule: 'zb-h2' is not one of them; did you mean zb-h1"),
        (["pipeline_schedule=zb-h1"], "pipeline_schedule: zb-h1 needs more than one pipeline stage"),
        (["context_parallel=3"], "context_parallel: 4096 tokens of a sequence do not divide into two pieces for each of 3"),
        (["sharding=hsdp"], "data_parallel_replicas: hsdp with one copy of the shards is zero3"),
        (["data_parallel_replicas=2"], "data_parallel_replicas: only hsdp keeps several copies of its shards, not zero1"),
        (["recompute_layers=4"], "recompute_layers: it is for recompute full; this run has none"),
        (["stack=megatron-lm", "context_parallel=2"], "context_parallel: attention over several ranks needs fused kernels"),
    ],
)
def test_a_run_that_cannot_exist_is_refused(overrides: list[str], sentence: str) -> None:
    """By the key that is wrong, with exit code 2."""
    with pytest.raises(InputError, match=sentence) as caught:
        read(*overrides)
    assert caught.value.exit_code == 2


def test_candidates_may_be_degrees_of_any_axis() -> None:
    """Four stages by two ranks of a sequence."""
    found = read_candidates("nemotron-4-15b", ["pipeline_parallel=[1,2,4,8]", "context_parallel=[1,2]"])
    assert [(each.run.pipeline_parallel, each.run.context_parallel) for each in found] == [
        (stages, ranks) for stages in (1, 2, 4, 8) for ranks in (1, 2)
    ]


def multiplied(*overrides: str, gpus: Sequence[int] = ()) -> list[str]:
    """What is said of numbers of GPUs that an override changed."""
    candidates = read_candidates("nemotron-4-15b", overrides, gpus=gpus)
    return [each for candidate in candidates for each in candidate.assumptions if "keeps its data_parallel" in each]


def test_gpus_that_a_degree_multiplied_are_told() -> None:
    """Each candidate with its own; two degrees together."""
    (sentence,) = multiplied("pipeline_parallel=4")
    assert sentence.startswith("pipeline_parallel made 3,072 GPUs of 768 in stage 1: ")
    (fewer,) = multiplied("tensor_parallel=4")
    assert fewer.startswith("tensor_parallel made 384 GPUs of 768 in stage 1: ")
    assert len(multiplied("pipeline_parallel=[1, 2, 4]")) == 2
    (both,) = multiplied("pipeline_parallel=4", "tensor_parallel=4")
    assert "tensor_parallel" in both
    assert "pipeline_parallel" in both
    assert "made 1,536 GPUs of 768" in both


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["tensor_parallel=8"],
        ["precision=fp8"],
        ["pipeline_parallel=2", "tensor_parallel=4"],
        ["pipeline_parallel=4", "stages=[{data_parallel: 24, global_batch_size: 384}]"],
    ],
    ids=" ".join,
)
def test_gpus_that_stay_or_were_stated_are_not(overrides: list[str]) -> None:
    """Nor where the caller keeps them."""
    assert multiplied(*overrides) == []
    assert multiplied("pipeline_parallel=2", gpus=(768, 1536, 2304)) == []


def test_a_degree_that_was_no_number_is_replaced_without_a_word() -> None:
    """What an override replaces need not be right."""
    mapping = {"model": "llama-3.1-8b", "cluster": "dgx-h100", "stack": "megatron-core", "sequence_length": 8192}
    stages = [{"data_parallel": 8, "global_batch_size": 128}]
    for odd in ("two", 0, None):
        (candidate,) = read_candidates(mapping | {"stages": stages, "tensor_parallel": odd}, ["tensor_parallel=2"])
        assert candidate.run.tensor_parallel == 2
        assert not any("keeps its data_parallel" in each for each in candidate.assumptions)
