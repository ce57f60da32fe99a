"""Is every layout that cannot exist refused, with the key that is wrong and a sentence, and its legal neighbour not?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import InputError, NotSupportedError, PerfmodelError
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import predict
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.refusals import check_setup, may_exist
from perfmodel.spec.run import RampStage, Run
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with
from tests.timing.fp32_hardware import FP32_CLUSTER, NO_FP32_CLUSTER

MODEL = model_preset("nemotron-4-15b")  # 48 heads, 8 KV heads, 32 layers
CLUSTER = cluster_preset("dgx-h100")
BATCHES = replace(RAMP_STAGE, global_batch_size=96 * 32)  # 32 micro-batches
ZERO_BUBBLE = ("zb-h1", "zb-1p", "zb-2p")


def refused(layout: Layout, model: TransformerModel = MODEL) -> PerfmodelError:
    """Why a layout is."""
    with pytest.raises(PerfmodelError) as caught:
        check_setup(setup_of(model, layout, cluster=CLUSTER))
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"tensor_parallel": 7},
            "tensor_parallel: 7 does not divide 48 attention heads; 1, 2, 3, 4, 6, 8, 12, 16, 24, 48 would",
        ),
        ({"tensor_parallel": 3}, "tensor_parallel: 3 neither divides 8 KV heads nor is a multiple of them"),
        ({"sequence_length": 4100}, "tensor_parallel: 8 does not divide 4100 tokens of a sequence on one rank; 1, 2, 4, 5, 10"),
        (
            {"context_parallel": 2, "sequence_length": 4104},
            "tensor_parallel: 8 does not divide 2052 tokens of a sequence on one rank; 1, 2, 3, 4, 6",
        ),
        (
            {"context_parallel": 3},
            "context_parallel: 4096 tokens of a sequence do not divide into two pieces for each of 3 ranks",
        ),
        (
            {"context_parallel": 2, "sequence_length": 4098, "sequence_parallel": False},
            "context_parallel: 4098 tokens of a sequence do not divide into two pieces for each of 2 ranks",
        ),
        (
            {"global_batch_size": 385},
            "global_batch_size: 385 sequences do not divide over 96 data-parallel replicas; 384 or 480",
        ),
        ({"global_batch_size": 48}, "global_batch_size: 48 sequences do not divide over 96 data-parallel replicas; 96 would"),
        ({"micro_batch_size": 3}, "micro_batch_size: 3 does not divide the 4 sequences of a replica; 1, 2, 4 would"),
        ({"micro_batch_size": 8}, "micro_batch_size: 8 does not divide the 4 sequences of a replica; 1, 2, 4 would"),
    ],
)
def test_degrees_and_batches_that_do_not_divide_are_refused(changes: dict[str, Any], sentence: str) -> None:
    """With what would."""
    assert str(refused(replace(RAMP_STAGE, **changes))).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"pipeline_parallel": 35},
            "pipeline_parallel: 35 pieces of the pipeline are more than 32 layers, an embedding and a head",
        ),
        (
            {"pipeline_parallel": 16, "virtual_pipeline": 3},
            "pipeline_parallel: 48 pieces of the pipeline are more than 32 layers, an embedding and a head",
        ),
        ({"virtual_pipeline": 2}, "virtual_pipeline: 2 pieces a stage need more than one pipeline stage"),
        *(
            ({"pipeline_schedule": schedule}, f"pipeline_schedule: {schedule} needs more than one pipeline stage")
            for schedule in ZERO_BUBBLE
        ),
        *(
            (
                {"pipeline_schedule": schedule, "pipeline_parallel": 4, "virtual_pipeline": 2},
                f"virtual_pipeline: {schedule} is not interleaved; it needs virtual_pipeline 1",
            )
            for schedule in ZERO_BUBBLE
        ),
        (
            {"pipeline_parallel": 3, "virtual_pipeline": 2},
            "virtual_pipeline: 32 layers do not divide into 6 pieces, nor with the head, or the embedding and the head,",
        ),
        (
            {"pipeline_parallel": 4, "virtual_pipeline": 2, "global_batch_size": 96 * 6},
            "virtual_pipeline: 6 micro-batches do not divide into groups of 4, one for each stage",
        ),
    ],
)
def test_pipelines_that_no_schedule_runs_are_refused(changes: dict[str, Any], sentence: str) -> None:
    """Too many pieces, pieces of a stage that has no neighbour, and micro-batches that make no groups."""
    assert str(refused(replace(BATCHES, **changes))).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sharding": "zero1", "data_parallel_replicas": 2}, "only hsdp keeps several copies of its shards, not zero1"),
        ({"sharding": "zero3", "data_parallel_replicas": 2}, "only hsdp keeps several copies of its shards, not zero3"),
        (
            {"sharding": "hsdp"},
            "hsdp with one copy of the shards is zero3; give the number of copies, often one a node",
        ),
        (
            {"sharding": "hsdp", "data_parallel_replicas": 96},
            "hsdp with a copy for every rank shards nothing; that is none, or",
        ),
        (
            {"sharding": "hsdp", "data_parallel_replicas": 5},
            "5 does not divide 96 data-parallel replicas; 1, 2, 3, 4, 6, 8, 12",
        ),
    ],
)
def test_copies_of_shards_are_those_of_hsdp(changes: dict[str, Any], sentence: str) -> None:
    """More than one, each of more than one rank, and all of as many."""
    assert str(refused(replace(RAMP_STAGE, **changes))).startswith(f"data_parallel_replicas: {sentence}")


@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_layers_are_counted_only_where_they_run_again_in_full(recompute: str) -> None:
    """Selective recompute is of every layer."""
    found = refused(replace(RAMP_STAGE, recompute=recompute, recompute_layers=2))
    assert str(found) == f"recompute_layers: it is for recompute full; this run has {recompute}"


@pytest.mark.parametrize(("pipeline", "held"), [(1, 32), (4, 8), (3, 11), (34, 1)])
def test_no_more_layers_run_again_than_the_fullest_stage_holds(pipeline: int, held: int) -> None:
    """As many do, one more is refused; 11 + 11 + 10 layers make three stages, 0 + 32 * 1 + 0 make 34."""
    layout = replace(BATCHES, recompute="full", pipeline_parallel=pipeline, recompute_layers=held)
    check_setup(setup_of(MODEL, layout, cluster=CLUSTER))
    sentence = f"recompute_layers: {held + 1} is more than the {held} layers of a pipeline stage"
    assert str(refused(replace(layout, recompute_layers=held + 1))) == sentence


def test_kernels_that_write_their_scores_are_of_one_rank() -> None:
    """Nobody passes keys on to them."""
    fused = stack_preset("megatron-core")
    unfused, layout = stack_with(fused, {"fusion.attention": False}), replace(RAMP_STAGE, context_parallel=2)
    check_setup(setup_of(MODEL, layout, fused))
    check_setup(setup_of(MODEL, RAMP_STAGE, unfused))
    for several in (layout, replace(layout, context_parallel=np.array([1, 2]))):
        with pytest.raises(InputError, match="attention over several ranks needs fused kernels") as caught:
            check_setup(setup_of(MODEL, several, unfused))
        assert caught.value.key == "context_parallel"


@pytest.mark.parametrize(
    "changes",
    [
        {"context_parallel": 2},
        {"context_parallel": 512},  # 8 tokens a rank: one for each of 8 tensor-parallel ranks
        {"context_parallel": 1, "sequence_length": 4097, "sequence_parallel": False},  # one piece need not have a middle
        {"pipeline_parallel": 2},
        {"pipeline_parallel": 33},  # 32 layers and a head
        {"pipeline_parallel": 34},  # 32 layers, an embedding and a head
        {"pipeline_parallel": 8, "virtual_pipeline": 4},
        {"pipeline_parallel": 32, "virtual_pipeline": 1, "global_batch_size": 96 * 3},  # only interleaving needs groups
        {"pipeline_parallel": 4, "virtual_pipeline": 2, "global_batch_size": 96 * 4},
        *({"pipeline_parallel": 4, "pipeline_schedule": schedule} for schedule in ZERO_BUBBLE),
        *({"sharding": sharding} for sharding in ("none", "zero1", "zero2", "zero3")),
        {"sharding": "hsdp", "data_parallel_replicas": 2},
        {"sharding": "hsdp", "data_parallel_replicas": 48},
        {"sharding": "hsdp", "data_parallel_replicas": 96, "context_parallel": 2},
        {"pipeline_parallel": 3},  # 11 + 11 + 10 layers, which need not be even without interleaving
        {"pipeline_parallel": 2, "virtual_pipeline": 17},  # 32 layers, an embedding and a head
        {"recompute": "full", "recompute_layers": 0},
        {"recompute": "full", "recompute_layers": 8, "pipeline_parallel": 4},
        {"tensor_parallel": 2, "context_parallel": 2, "pipeline_parallel": 4, "sharding": "zero3"},
    ],
)
def test_the_legal_neighbour_of_a_refused_layout_is_predicted(changes: dict[str, Any]) -> None:
    """Nothing that can exist is refused, and all that is not refused has a time and a size."""
    layout = replace(BATCHES, **changes)
    run = Run(
        name="Neighbour",
        model=MODEL,
        cluster=CLUSTER,
        stack=stack_preset("megatron-core"),
        stages=(RampStage(data_parallel=96, global_batch_size=layout.global_batch_size),),
        **{name: getattr(layout, name) for name in Layout.__dataclass_fields__ if name in Run.__dataclass_fields__},
    )
    ((_, predicted),) = predict(run).stages
    assert predicted.layout == layout
    assert predicted.iteration_time_s > 0
    assert predicted.memory.total_bytes > 0


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"tensor_parallel": np.array([2, 7])}, "tensor_parallel"),
        ({"context_parallel": np.array([1, 2, 3])}, "context_parallel"),
        ({"global_batch_size": np.array([96, 97])}, "global_batch_size"),
        ({"micro_batch_size": np.array([1, 2, 3])}, "micro_batch_size"),
        ({"pipeline_parallel": np.array([2, 35])}, "pipeline_parallel"),
        ({"pipeline_parallel": np.array([1, 4]), "virtual_pipeline": 2}, "virtual_pipeline"),
        ({"pipeline_parallel": np.array([2, 3]), "virtual_pipeline": np.array([2, 2])}, "virtual_pipeline"),
        ({"pipeline_parallel": np.array([4, 1]), "pipeline_schedule": "zb-h1"}, "pipeline_schedule"),
        ({"sharding": "hsdp", "data_parallel_replicas": np.array([2, 5])}, "data_parallel_replicas"),
        ({"sharding": "hsdp", "data_parallel_replicas": np.array([1, 2])}, "data_parallel_replicas"),
        ({"recompute": "full", "recompute_layers": np.array([1, 40])}, "recompute_layers"),
    ],
)
def test_one_layout_of_many_that_cannot_exist_is_enough(changes: dict[str, Any], key: str) -> None:
    """Arrays are refused by the same keys."""
    assert refused(replace(BATCHES, **changes)).key == key


def test_arrays_of_legal_layouts_pass_together() -> None:
    """Stages down, pieces across: each pair exists, and so do all."""
    stages, pieces = np.array([[2], [4], [8]]), np.array([1, 2, 4])
    check_setup(setup_of(MODEL, replace(BATCHES, pipeline_parallel=stages, virtual_pipeline=pieces), cluster=CLUSTER))
    check_setup(setup_of(MODEL, replace(BATCHES, context_parallel=np.array([1, 2, 4, 8])), cluster=CLUSTER))
    check_setup(
        setup_of(MODEL, replace(BATCHES, sharding="hsdp", data_parallel_replicas=np.array([2, 3, 48])), cluster=CLUSTER)
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ffn_hidden_size": 24570}, "4 does not divide 24570 columns of the MLP (ffn_hidden_size); 1, 2, 3, 5, 6"),
        ({"hidden_size": 6150}, "4 does not divide 6150 columns (hidden_size); 1, 2, 3, 5, 6"),
    ],
)
def test_every_width_of_the_model_is_divided(changes: dict[str, Any], sentence: str) -> None:
    """The MLP's and the stream's as well as the heads."""
    found = refused(replace(RAMP_STAGE, tensor_parallel=4), replace(MODEL, **changes))
    assert str(found).startswith(f"tensor_parallel: {sentence}")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pipeline_schedule": "zbh1"}, "pipeline_schedule: 'zbh1' is not one of them; did you mean zb-h1?"),
        ({"sharding": "zero-3"}, "sharding: 'zero-3' is not one of them; did you mean zero3?"),
        ({"pipeline_parallel": 0}, "pipeline_parallel: 0 must be at least 1"),
        ({"virtual_pipeline": 1.5}, "virtual_pipeline: 1.5 is not a whole number"),
        ({"context_parallel": np.array([1, 0])}, "context_parallel: array([1, 0]) must be at least 1"),
        ({"data_parallel_replicas": None}, "data_parallel_replicas: nothing is not a number"),
        ({"recompute_layers": -1}, "recompute_layers: -1 must be at least 0"),
    ],
)
def test_settings_that_are_none_are_refused_before_any_model_is_known(changes: dict[str, Any], sentence: str) -> None:
    """By the layout itself."""
    with pytest.raises(InputError) as caught:
        replace(RAMP_STAGE, **changes)
    assert str(caught.value) == sentence


def test_tensor_parallelism_that_breaks_nodes_up_is_refused() -> None:
    """A group of 16 fills two nodes of 8; one of 12 would leave half a node over."""
    model = replace(MODEL, attention_heads=48, kv_heads=48, ffn_hidden_size=24576)
    check_setup(setup_of(model, replace(RAMP_STAGE, tensor_parallel=16), cluster=CLUSTER))
    found = refused(replace(RAMP_STAGE, tensor_parallel=12, sequence_length=4092), model)
    assert str(found) == "tensor_parallel: 12 neither divides a node of 8 GPUs nor fills whole nodes"


def test_learned_positions_bound_the_sequence() -> None:
    """GPT-3 has 2048 of them."""
    found = refused(RAMP_STAGE, model_preset("gpt-3-175b"))
    assert str(found).startswith("sequence_length: 4096 exceeds the 2048 learned positions")


def test_unmeasured_arithmetic_is_not_supported() -> None:
    """A GPU with a peak rate but no measured kernels is not guessed at."""
    gpu = replace(CLUSTER.gpu, kernels=replace(CLUSTER.gpu.kernels, matmul={"bf16": CLUSTER.gpu.kernels.matmul["bf16"]}))
    with pytest.raises(NotSupportedError, match="no fp8 kernels were measured on H100"):
        check_setup(setup_of(MODEL, replace(RAMP_STAGE, precision="fp8"), cluster=replace(CLUSTER, gpu=gpu)))


def test_fp32_needs_a_peak_products_and_attention_of_its_own() -> None:
    """What is missing is named, each in turn; a GPU that has all three runs it."""
    layout = replace(RAMP_STAGE, precision="fp32")
    kernels = FP32_CLUSTER.gpu.kernels
    plain = {name: known for name, known in kernels.matmul.items() if name != "fp32"}
    check_setup(setup_of(MODEL, layout, cluster=FP32_CLUSTER))
    for gpu, sentence in (
        (NO_FP32_CLUSTER.gpu, "H100 SXM 80GB has no fp32 rate; it has bf16, fp16, fp8"),
        (replace(FP32_CLUSTER.gpu, kernels=replace(kernels, matmul=plain)), "no fp32 kernels were measured on H100 SXM 80GB"),
        (
            replace(FP32_CLUSTER.gpu, kernels=replace(kernels, attention_forward_fp32=None)),
            r"no fp32 attention \(forward\) was measured on H100 SXM 80GB",
        ),
        (
            replace(FP32_CLUSTER.gpu, kernels=replace(kernels, attention_backward_fp32=None)),
            r"no fp32 attention \(backward\) was measured on H100 SXM 80GB",
        ),
    ):
        with pytest.raises(NotSupportedError, match=sentence) as caught:
            check_setup(setup_of(MODEL, layout, cluster=replace(CLUSTER, gpu=gpu)))
        assert caught.value.key == "precision"


def test_a_run_says_which_of_its_stages_cannot_exist() -> None:
    """Batches are of a stage of the ramp, degrees of the run."""
    good, bad = RampStage(data_parallel=96, global_batch_size=384), RampStage(data_parallel=96, global_batch_size=385)
    run: dict[str, Any] = {"name": "Ramp", "model": MODEL, "cluster": CLUSTER, "stack": stack_preset("megatron-core")}
    run |= {"sequence_parallel": True, "sharding": "zero1", "sequence_length": 4096}
    for changes, key in (
        ({"stages": (good, bad)}, "stages[1].global_batch_size"),
        ({"stages": (good,), "virtual_pipeline": 2}, "virtual_pipeline"),
        ({"stages": (good,), "data_parallel_replicas": 2}, "data_parallel_replicas"),
        ({"stages": (good,), "context_parallel": 2, "stack": stack_preset("megatron-lm")}, "context_parallel"),
    ):
        with pytest.raises(InputError) as caught:
            Run(**{**run, **changes})
        assert caught.value.key == key


@pytest.mark.parametrize("precision", ["tf32", "fp32"])
def test_software_whose_attention_takes_2_bytes_alone_is_refused_on_4(precision: str) -> None:
    """With its name and that of the precision; in 16 bits it runs."""
    nanotron = stack_preset("nanotron")
    check_setup(setup_of(MODEL, RAMP_STAGE, nanotron))
    sentence = f"^precision: nanotron has no attention in {precision}: its kernels take numbers of 2 bytes$"
    with pytest.raises(NotSupportedError, match=sentence):
        check_setup(setup_of(MODEL, replace(RAMP_STAGE, precision=precision), nanotron))


@pytest.mark.parametrize("precision", ["tf32", "fp32"])
def test_scores_in_memory_belong_to_one_rank(precision: str) -> None:
    """Transformer Engine forms them on 4 bytes, and then no ring of ranks can share a sequence."""
    layout = replace(RAMP_STAGE, context_parallel=2, data_parallel=48, precision=precision)
    sentence = f"which Megatron-Core .2024. does not run in {precision}; 1 would do"
    with pytest.raises(InputError, match=sentence):
        check_setup(setup_of(MODEL, layout))
    check_setup(setup_of(MODEL, layout, stack_preset("generic")))
    assert [bool(may_exist(setup_of(MODEL, replace(layout, precision=each)))) for each in ("bf16", precision)] == [True, False]
