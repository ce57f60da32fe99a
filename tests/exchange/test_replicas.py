"""Does the data-parallel degree follow from the GPUs where a run leaves it out?"""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.exchange.replicas import with_replicas

RUN: dict[str, Any] = {
    "model": "llama-3.1-8b", "cluster": "dgx-h100", "stack": "megatron-core", "tensor_parallel": 2, "pipeline_parallel": 4,
    "sequence_length": 4096, "gpus": 64, "stages": [{"global_batch_size": 64}],
}  # fmt: skip


def test_replicas_are_gpus_over_those_of_one() -> None:
    """In every stage of the run that is read."""
    run = api.load(RUN)
    assert [int(run.layout(stage).gpus) for stage in run.stages] == [64]


def test_a_stage_may_have_its_own_gpus() -> None:
    """They count before those of the run."""
    stages = [{"global_batch_size": 8, "gpus": 8}, {"global_batch_size": 64}]
    assert [each["data_parallel"] for each in with_replicas(RUN | {"stages": stages})["stages"]] == [1, 8]


def test_a_batch_that_is_left_out_is_one_pass_a_replica() -> None:
    """Whether replicas are given or follow."""
    assert with_replicas(RUN | {"micro_batch_size": 3, "stages": [{}]})["stages"][0]["global_batch_size"] == 24
    assert with_replicas({"stages": [{"data_parallel": 5}]})["stages"][0]["global_batch_size"] == 5


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"gpus": 60}, "gpus: 60 GPUs do not divide into replicas of 8 GPUs (tensor_parallel 2 x pipeline_parallel 4)"),
        (
            {"stages": [{"data_parallel": 4, "global_batch_size": 64}]},
            "stages[0].data_parallel: 4 replicas make 32 GPUs, where gpus",
        ),
        ({"gpus": 6.5}, "gpus: 6.5 is not a positive whole number"),
        ({"gpus": "many"}, "gpus: 'many' is not a count"),
        ({"tensor_parallel": [1, 2]}, "tensor_parallel: [1, 2] lists several values"),
    ],
)
def test_gpus_that_cannot_be_are_refused(changes: dict[str, Any], sentence: str) -> None:
    """With the key and what would make the number."""
    with pytest.raises(InputError) as caught:
        api.load(RUN | changes)
    assert sentence in str(caught.value)
