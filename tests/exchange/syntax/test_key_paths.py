"""Do key paths lead where people mean them to, and do wrong ones say where that is?"""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.run_files import Setting, read_candidates
from perfmodel.spec.run import Run

PRESET = "nemotron-4-15b"
RAMP_GPUS = (768, 1536, 2304)


def read(*overrides: Setting, gpus: tuple[int, ...] = ()) -> Run:
    """The central preset with overrides."""
    return read_candidates(PRESET, overrides, gpus=gpus)[0].run


@pytest.mark.parametrize("key", ["stages[-1]", "stages.-1", "stages[2]", "stages.2"])
def test_places_in_lists_count_from_both_ends(key: str) -> None:
    """-1 is the last stage, whatever their number."""
    assert [stage.data_parallel for stage in read(f"{key}.data_parallel=384").stages] == [96, 192, 384]


def test_a_star_is_every_stage() -> None:
    """One value for all of them, or a factor for each."""
    assert {stage.tokens for stage in read("stages[*].tokens=1T").stages} == {1e12}
    assert [stage.global_batch_size for stage in read("stages[*].global_batch_size=x0.5").stages] == [192, 384, 576]


def test_a_factor_multiplies_what_stands_there() -> None:
    """Numbers, quantities with their unit, what an earlier override put there, and defaults."""
    assert read("cluster.links.network.bandwidth_bytes_per_s=x2").cluster.links.network.bandwidth_bytes_per_s == 100e9
    assert read("cluster.compute_scale=x0.5").cluster.compute_scale == 0.5
    assert read("micro_batch_size=2", "micro_batch_size=x2").micro_batch_size == 4
    assert read("sharding=hsdp", "data_parallel_replicas=x2").data_parallel_replicas == 2


def test_a_factor_multiplies_each_candidate() -> None:
    """A list of values stays one."""
    found = read_candidates(PRESET, ["micro_batch_size=[1,2]", "micro_batch_size=x2"])
    assert [candidate.run.micro_batch_size for candidate in found] == [2, 4]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("tp=4", "tp: unknown key; did you mean tensor_parallel?"),
        ("IB=800Gb/s", "did you mean cluster.links.network.bandwidth_bytes_per_s?"),
        ("nvlink=900GB/s", "did you mean cluster.links.node.bandwidth_bytes_per_s?"),
        ("price=2.5", "did you mean economics.dollars_per_gpu_hour?"),
        ("gpu=h200", r"did you mean cluster \(perfmodel list clusters\)\?"),
        ("gpu.memory_bytes=80GB", "gpu: unknown key; did you mean cluster.gpu.memory_bytes?"),
        (
            "data_parallel=384",
            r"did you mean stages\[-1\].data_parallel \(the last stage\) or stages",
        ),
        ("layers=40", "did you mean model.layers?"),
        ("network_scal=0.8", "did you mean cluster.network_scale?"),
        ("host_s=9us", "did you mean stack.host.launch_s?"),
        ("launch_s=9us", "did you mean stack.host.launch_s?"),
        ("stack.host_s=9us", "stack.host_s: unknown key; it is called stack.host.launch_s now"),
        ("stack.spread.host_s=9%", "stack.spread: unknown key; it is called stack.host.spread, overlap.spread and so on now"),
        ("zzz=1", "zzz: unknown key; known: adapter_rank, adapter_targets"),
        ("stages[-4].tokens=1T", "'-4' is not a place in a list of 3: the first is 0, the last is -1"),
        ("stages[*].tokens.x=1", r"stages.0.tokens: 2\d+.0 has no keys below it"),
        ("stages[x].tokens=1", r"stages\[x\]: unknown key|not a place"),
        ("name=x2", "name: 'Nemotron-4 15B' is not a number, so x2 cannot multiply it"),
        ("micro_batch_size=x0.5", "micro_batch_size: 0.5 is not a whole number"),
        ("cluster.speed=x2", "cluster.speed: no value to multiply; write the value itself"),
    ],
)
def test_a_key_that_leads_nowhere_says_which_one_is_meant(override: str, sentence: str) -> None:
    """What people shorten, what lies further down, what is misspelt."""
    with pytest.raises(InputError, match=sentence):
        read(override)


def test_an_override_may_be_a_key_and_a_value() -> None:
    """As Python has them."""
    assert read(("cluster", "dgx-h200"), ("stages[-1].data_parallel", 384), "tensor_parallel=4") == read(
        "cluster=dgx-h200", "stages[-1].data_parallel=384", "tensor_parallel=4"
    )


def test_a_run_is_read_back_as_it_is() -> None:
    """What was built can be varied as what was read."""
    run = read()
    (again,) = read_candidates(run)
    assert again.run == run
    assert again.assumptions == ()
    assert read_candidates(run, ["cluster=dgx-b200"])[0].run == read("cluster=dgx-b200")


def test_a_mapping_is_a_run_too() -> None:
    """What a run file would hold."""
    stages = [{"data_parallel": 4, "global_batch_size": 128}]
    mapping = {
        "model": "llama-3.1-8b",
        "cluster": "dgx-h100",
        "stack": "megatron-core",
        "sequence_length": 8192,
        "stages": stages,
    }
    (candidate,) = read_candidates(mapping | {"stages": stages}, ["tensor_parallel=2"])
    assert candidate.run.name == "run"
    assert candidate.run.tensor_parallel == 2


def test_data_parallelism_gives_or_takes_where_gpus_are_kept() -> None:
    """Half the tensor parallelism is twice the replicas, in each stage."""
    run = read("tensor_parallel=4", gpus=RAMP_GPUS)
    assert [stage.data_parallel for stage in run.stages] == [192, 384, 576]
    assert [int(np.asarray(run.layout(stage).gpus)) for stage in run.stages] == list(RAMP_GPUS)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "pipeline_parallel=5",
            r"stages\[0\]: 768 GPUs cannot be kept: tensor_parallel 8 x pipeline_parallel 5 does not divide them",
        ),
        ("stages[-1].data_parallel=384", "this follows from the number of GPUs, which is kept"),
        ("tensor_parallel=0", r"stages\[0\]: 768 GPUs cannot be kept"),
        ("tensor_parallel=many", "tensor_parallel: 'many' is not a count"),
        ("tensor_parallel=1", r"stages\[0\].global_batch_size: 384 sequences do not divide over 768"),
        (
            "stages=[{data_parallel: 1, global_batch_size: 1}]",
            "the numbers of GPUs of 3 stages cannot be kept",
        ),
    ],
)
def test_gpus_that_cannot_be_kept_are_refused(override: str, sentence: str) -> None:
    """In one sentence."""
    with pytest.raises(InputError, match=sentence):
        read(override, gpus=RAMP_GPUS)
