"""Do the steps from the peak add up, and does each have the size that its name says?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.exchange.presets import stack_preset
from perfmodel.explanation.waterfall import STEPS, Waterfall, waterfall
from perfmodel.prediction import predict_stage
from perfmodel.spec.layout import Layout
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.refusals import may_exist
from tests.layouts import RAMP_STAGE
from tests.search.layouts.layouts import CLUSTER, LAYOUTS, MODEL, STACKS, predicted
from tests.setups import setup_of
from tests.stacks import stack_with

KERNELS = ("wider_arithmetic", "uncounted_flop", "causal_mask", "matmul_kernels", "attention_kernels", "clocks", "memory_bound")
COMMUNICATION = ("tensor_parallel", "context_parallel", "communication_slowdown", "pipeline_parallel", "data_parallel")


def fall_of(layout: str, stack: str = "megatron-core", cluster: Cluster = CLUSTER) -> Waterfall:
    """The waterfall of one layout."""
    software = stack_preset(stack)
    there = (
        predicted(layout, stack)
        if cluster is CLUSTER
        else predict_stage(setup_of(MODEL, LAYOUTS[layout], software, cluster=cluster))
    )
    return waterfall(there, cluster=cluster, stack=software)


def seconds_of(fall: Waterfall) -> dict[str, float]:
    """Seconds by step."""
    return {step.name: step.seconds for step in fall.steps}


def assert_sums(fall: Waterfall, iteration_time_s: float, mfu: float) -> None:
    """From nothing to the iteration in seconds, from 100 % to the prediction in MFU."""
    assert fall.ideal_s + sum(step.seconds for step in fall.steps) == pytest.approx(iteration_time_s, rel=1e-12)
    assert 1.0 + sum(step.mfu_change for step in fall.steps) == pytest.approx(mfu, rel=1e-11)
    assert fall.ideal_s / fall.iteration_time_s == pytest.approx(mfu, rel=1e-12)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps_add_up_to_the_prediction(layout: str, stack: str) -> None:
    """In seconds and in MFU, for every kind of layout and of software."""
    there = predicted(layout, stack)
    fall = fall_of(layout, stack)
    assert tuple(step.name for step in fall.steps) == STEPS
    assert_sums(fall, float(there.iteration_time_s), float(there.mfu))


@settings(max_examples=60, deadline=None)
@given(
    tensor=st.sampled_from([1, 2, 4, 8]),
    pipeline=st.sampled_from([1, 2, 4, 8]),
    virtual=st.sampled_from([1, 2, 4]),
    context=st.sampled_from([1, 2]),
    micro=st.sampled_from([1, 2]),
    recompute=st.sampled_from(["none", "selective", "full"]),
    sharding=st.sampled_from(["none", "zero1", "zero2", "zero3"]),
    precision=st.sampled_from(["bf16", "fp8"]),
    stack=st.sampled_from(STACKS),
)
def test_steps_of_any_layout_add_up(
    tensor: int,
    pipeline: int,
    virtual: int,
    context: int,
    micro: int,
    recompute: str,
    sharding: str,
    precision: str,
    stack: str,
) -> None:
    """Whatever is combined with whatever."""
    layout = Layout(
        precision=precision,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        virtual_pipeline=virtual,
        context_parallel=context,
        data_parallel=16,
        sequence_parallel=True,
        sharding=sharding,
        recompute=recompute,
        micro_batch_size=micro,
        global_batch_size=16 * 16,
        sequence_length=4096,
    )
    software = stack_preset(stack)
    if not may_exist(setup_of(MODEL, layout, software, cluster=CLUSTER)):
        return
    there = predict_stage(setup_of(MODEL, layout, software, cluster=CLUSTER))
    assert_sums(waterfall(there, cluster=CLUSTER, stack=software), float(there.iteration_time_s), float(there.mfu))


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("layout", ["dense", "fp8", "selective", "zero3", "context", "full recompute"])
def test_kernels_of_one_stage_are_those_of_the_breakdown(layout: str, stack: str) -> None:
    """Ideal, what kernels lose and what runs again make up matrix products, attention and memory-bound operators."""
    fall, parts = fall_of(layout, stack), predicted(layout, stack).breakdown
    seconds = seconds_of(fall)
    together_s = fall.ideal_s + sum(seconds[name] for name in (*KERNELS, "recompute"))
    assert together_s == pytest.approx(float(parts.matmul_s + parts.attention_s + parts.memory_bound_s), rel=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_kernels_is_as_in_the_breakdown(layout: str) -> None:
    """Bubble, messages, data parallelism and optimizer, which no average over stages changes."""
    seconds, parts = seconds_of(fall_of(layout)), predicted(layout).breakdown
    assert seconds["pipeline_bubble"] == pytest.approx(float(parts.pipeline_bubble_s))
    assert seconds["pipeline_parallel"] == pytest.approx(float(parts.pipeline_parallel_exposed_s))
    assert seconds["data_parallel"] == pytest.approx(float(parts.data_parallel_exposed_s))
    assert seconds["optimizer"] == pytest.approx(float(parts.optimizer_s))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_ideal_stack_has_no_exposed_communication(layout: str) -> None:
    """Nor waits it for launches."""
    seconds = seconds_of(fall_of(layout, "ideal"))
    assert not any(seconds[name] for name in (*COMMUNICATION, "launch", "unlisted"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_step_but_one_costs_time(layout: str) -> None:
    """Only the mask, which kernels skip and the convention counts, gives some back."""
    seconds = seconds_of(fall_of(layout))
    assert [name for name, value in seconds.items() if value < -1e-12] == ["causal_mask"]


def test_nothing_runs_again_without_recompute() -> None:
    """With full recompute a forward pass of the layers does."""
    assert seconds_of(fall_of("dense"))["recompute"] == 0.0
    once, few = seconds_of(fall_of("full recompute"))["recompute"], seconds_of(fall_of("some layers"))["recompute"]
    assert few == pytest.approx(once * 5 / MODEL.layers)


def test_without_losses_of_clocks_they_are_no_step() -> None:
    """A cluster at the clocks of the datasheet, of GPUs that are all alike and that no power limit holds down."""
    limited = replace(CLUSTER, compute_scale=1.0, gpu_speed_deviation=0.0)
    steady = replace(limited, gpu=replace(CLUSTER.gpu, full_load_slowdown=0.0))
    assert seconds_of(fall_of("dense", cluster=steady))["clocks"] == pytest.approx(0.0, abs=1e-15)
    assert seconds_of(fall_of("dense", cluster=limited))["clocks"] > 0
    assert seconds_of(fall_of("dense"))["clocks"] > 0


def test_16_bit_arithmetic_is_a_step_of_an_8_bit_run_alone() -> None:
    """Its attention and logits at half of the peak rate: as long again as at the whole of it."""
    assert seconds_of(fall_of("dense"))["wider_arithmetic"] == 0.0
    fall, layout = fall_of("fp8"), LAYOUTS["fp8"]
    tokens = layout.tokens_per_iteration / layout.gpus
    attention = 12 * MODEL.layers * MODEL.query_size * layout.sequence_length
    logits = 6 * MODEL.vocab_size * MODEL.hidden_size
    at_peak_s = tokens * (attention + logits) / CLUSTER.gpu.peak("fp8")
    bf16_rate = CLUSTER.gpu.peak("fp8") / CLUSTER.gpu.peak("bf16")
    assert seconds_of(fall)["wider_arithmetic"] == pytest.approx(at_peak_s * (bf16_rate - 1), rel=1e-9)


def test_the_mask_gives_back_half_of_the_square_less_scores_formed_again() -> None:
    """Forward 2 of 2 products over half, backward 5 of 4: (2 + 5) / 2 of the 2 + 4 that are counted."""
    fall, layout = fall_of("dense"), LAYOUTS["dense"]
    counted = 12 * MODEL.layers * MODEL.query_size * layout.sequence_length * layout.tokens_per_iteration / layout.gpus
    performed = counted * (2 + 5) / 2 / 6
    assert seconds_of(fall)["causal_mask"] == pytest.approx((performed - counted) / CLUSTER.gpu.peak("bf16"), rel=1e-9)


def test_attention_that_forms_all_scores_skips_nothing() -> None:
    """Unfused, the whole square is computed."""
    unfused = stack_with(stack_preset("megatron-core"), {"fusion.attention": False})
    there = predict_stage(setup_of(MODEL, RAMP_STAGE, unfused, cluster=CLUSTER))
    assert seconds_of(waterfall(there, cluster=CLUSTER, stack=unfused))["causal_mask"] == 0.0


def test_padding_is_what_the_convention_does_not_count() -> None:
    """Three products with the columns that pad the vocabulary."""
    odd = replace(MODEL, vocab_size=255_000)
    software = stack_preset("megatron-core")
    there = predict_stage(setup_of(odd, RAMP_STAGE, software, cluster=CLUSTER))
    padding = odd.padded_vocab_size(8) - 255_000
    flop = 6 * padding * odd.hidden_size * RAMP_STAGE.tokens_per_iteration / RAMP_STAGE.gpus
    seconds = seconds_of(waterfall(there, cluster=CLUSTER, stack=software))
    assert seconds["uncounted_flop"] == pytest.approx(flop / CLUSTER.gpu.peak("bf16"), rel=1e-9)
    assert seconds_of(fall_of("dense"))["uncounted_flop"] == pytest.approx(0.0, abs=1e-15)


def test_uneven_stages_are_what_the_slowest_takes_beyond_the_average() -> None:
    """The head makes the last stage slower, more so on more stages; one stage is the average."""
    assert seconds_of(fall_of("dense"))["uneven_stages"] == 0.0
    two, four = (seconds_of(fall_of(name))["uneven_stages"] for name in ("two stages", "pipeline"))
    assert 0.0 < two < four


def test_mfu_without_a_step_is_that_of_a_shorter_iteration() -> None:
    """ideal / (iteration - step)."""
    fall = fall_of("pipeline")
    for step in fall.steps:
        assert step.mfu_without == pytest.approx(fall.ideal_s / (fall.iteration_time_s - step.seconds))


def test_rows_count_down_from_the_peak() -> None:
    """Each row has the MFU that is left, the last the prediction."""
    rows = fall_of("pipeline").rows()
    assert (rows[0]["step"], rows[0]["mfu"], rows[-1]["step"]) == ("peak", 1.0, "predicted")
    assert rows[-2]["mfu"] == pytest.approx(rows[-1]["mfu"], rel=1e-12)
    for before, after in pairwise(rows[:-1]):
        assert after["mfu"] == pytest.approx(before["mfu"] + after["mfu_change"])


@pytest.mark.parametrize("stack", ["megatron-core", "generic"])
@pytest.mark.parametrize("precision", ["tf32", "fp32"])
def test_steps_add_up_where_attention_computes_faster_than_the_products(precision: str, stack: str) -> None:
    """Fused attention of fp32 runs on tensor cores: what its FLOPs take there is less than at the peak of the products."""
    software = stack_preset(stack)
    there = predict_stage(setup_of(MODEL, replace(RAMP_STAGE, precision=precision), software, cluster=CLUSTER))
    fall = waterfall(there, cluster=CLUSTER, stack=software)
    assert_sums(fall, float(there.iteration_time_s), float(there.mfu))
    gained = seconds_of(fall)["wider_arithmetic"]
    tokens = RAMP_STAGE.tokens_per_iteration / RAMP_STAGE.gpus
    attention = tokens * 12 * MODEL.layers * MODEL.query_size * RAMP_STAGE.sequence_length
    fused_in_fp32 = precision == "fp32" and stack == "generic"
    expected_s = attention * (1 / CLUSTER.gpu.peak("tf32") - 1 / CLUSTER.gpu.peak("fp32")) if fused_in_fp32 else 0.0
    assert gained == pytest.approx(expected_s, rel=1e-9, abs=1e-12)
    assert all(step.seconds >= 0 for step in fall.steps if step.name in ("matmul_kernels", "attention_kernels", "clocks"))
