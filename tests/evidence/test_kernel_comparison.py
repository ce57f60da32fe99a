"""Do kernels of other people's software belong to the operators that they run, and is all other time shown?"""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.count.operators import Collective, Matmul, MemoryBound, Operator
from perfmodel.evidence.steps.kernel_comparison import KernelComparison, has_kernels, kernel_comparison
from perfmodel.evidence.steps.profiled_step import profiled_step
from perfmodel.exchange.questions.profiled_runs import profile_comparison, trace_kinds
from perfmodel.spec.layout import ProcessGroup
from perfmodel.timing.ledger import ledger, seconds_of_a_gpu
from tests.evidence.step_examples import small_prediction

KERNELS = {  # as profiles of Megatron-LM, TransformerEngine, torchtitan, DeepSpeed and FlashAttention have them
    "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)": "all-reduce",
    "ncclKernel_AllGather_RING_LL_Sum_int8_t(ncclDevComm*, unsigned long, ncclWork*)": "all-gather",
    "ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)": "reduce-scatter",
    "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)": "send, receive, all-to-all",
    "ncclDevKernel_Broadcast_RING_LL(ncclDevKernelArgsStorage<4096ul>)": "other collectives",
    "nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT": "products",
    "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize2x1x1_execute_segment_k_off_kernel": "products",
    "ampere_bf16_s16816gemm_bf16_256x128_ldg8_f2f_stages_32x3_nn": "products",
    "sm90_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n_tilesize64x64x128_cublas": "products",
    "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_7": "attention",
    "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<128, 128, 64> >(Params)": "attention",
    "void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<flash::CollectiveMainloopFwdSm90> > >": "attention",
    "void transformer_engine::normalization::rmsnorm_fwd_tuned_kernel<Kernel_traits<__nv_bfloat16> >(Params)": "norms",
    "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>(int, float)": "norms",
    "triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_3": "norms",
    "void fused_rope_block_forward<c10::BFloat16>(int, float const*)": "rotary positions",
    "triton_poi_fused_mul_silu_2": "activation",
    "void transformer_engine::gated_kernel<float, __nv_bfloat16>(float)": "activation",
    "void at::native::(anonymous namespace)::cunn_SoftMaxForward<8, float, float>(float*)": "loss",
    "liger_cross_entropy_kernel": "loss",
    "void scaled_upper_triang_masked_softmax_warp_forward<c10::Half, float, 11>(c10::Half*)": "attention scores",
    "void (anonymous namespace)::multi_tensor_apply_kernel<TensorListMetadata<4>, AdamFunctor<float> >(long)": "optimizer",
    "void transformer_engine::cast_transpose_general_kernel<4, 4, float>(float)": "casts to 8 and 4 bits",
    "void at::native::(anonymous namespace)::indexSelectLargeIndex<c10::BFloat16, long>(int)": "embedding",
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16> >(int)": "elementwise",
    "void at::native::bitonicSortKVInPlace<-2, -1, 16, 16, long, long>(int)": "routing of experts",
}
ODD = "void cub::DeviceScanKernel<cub::Policy, int*>(int*)"


def trace(*kernels: tuple[str, float, float], kind: str = "kernel", device: int = 0) -> list[dict[str, Any]]:
    """Spans of a GPU: name, start and length [us]."""
    at = {"ph": "X", "cat": kind, "pid": device, "tid": 7, "args": {"device": device}}
    return [{**at, "name": name, "ts": start, "dur": long} for name, start, long in kernels]


def compared(*spans: dict[str, Any], operators: tuple[tuple[Operator, float], ...] = ()) -> KernelComparison:
    """What a trace with these spans says beside some operators."""
    return kernel_comparison(profiled_step(list(spans)), operators, trace_kinds())


@pytest.mark.parametrize(("name", "kind"), KERNELS.items())
def test_a_kernel_belongs_to_the_operators_that_its_name_tells(name: str, kind: str) -> None:
    """In the first kind that fits."""
    found = compared(*trace((name, 0.0, 5.0)))
    assert [row.name for row in found.kinds] == [kind]
    assert found.unmatched == ()


def test_every_kind_that_a_pattern_knows_has_an_example_above() -> None:
    """So that a pattern that another one hides is seen."""
    assert {kind.name for kind in trace_kinds()} == set(KERNELS.values())


def test_times_of_a_step_add_up() -> None:
    """Kinds, what no name tells, copies and waiting, less what runs beside other kernels."""
    names = list(KERNELS)
    found = compared(
        *trace((names[5], 10.0, 40.0), (names[1], 30.0, 40.0), (ODD, 90.0, 5.0), (ODD, 96.0, 2.0)),
        *trace(("Memcpy HtoD", 70.0, 10.0), kind="gpu_memcpy"),
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 0.0, "dur": 100.0},
    )
    assert {row.name: round(row.measured_s * 1e6) for row in found.kinds} == {"all-gather": 40, "products": 40}
    assert [(row.name, row.launches, round(row.measured_s * 1e6)) for row in found.unmatched] == [
        ("cub::DeviceScanKernel", 2, 7)
    ]
    assert [round(each * 1e6) for each in (found.copies_s, found.overlapped_s, found.idle_s)] == [10, 20, 23]
    whole_s = (
        sum(row.measured_s for row in found.kinds) + found.unmatched_s + found.copies_s - found.overlapped_s + found.idle_s
    )
    assert whole_s == pytest.approx(found.step_s)


def test_several_gpus_are_averaged() -> None:
    """Of a process that has two."""
    name = next(iter(KERNELS))
    found = compared(*trace((name, 0.0, 10.0)), *trace((name, 0.0, 20.0), device=1))
    assert (found.gpus, found.kinds[0].launches, round(found.kinds[0].measured_s * 1e6)) == (2, 1, 15)


def test_operators_of_a_prediction_go_to_their_kinds() -> None:
    """By collective, kernel, role and type; a kind whose kernels are missing stays, one that is not predicted has no error."""
    group = ProcessGroup(name="all", ranks=8, stride=1)
    operators = (
        (Collective(name="a", kind="all_gather", payload_bytes=1.0, group=group), 1e-6),
        (MemoryBound(name="b", kernel="rotary", moved_bytes=1.0), 2e-6),
        (MemoryBound(name="c", moved_bytes=1.0), 3e-6),
    )
    found = compared(*trace((next(iter(KERNELS)), 0.0, 10.0)), operators=operators)
    shown = {row.name: row.predicted_s for row in found.kinds}
    assert shown == {"all-reduce": None, "all-gather": 1e-6, "rotary positions": 2e-6, "elementwise": 3e-6}
    assert all(row.error is None for row in found.kinds)


def test_every_operator_of_a_prediction_has_a_kind() -> None:
    """And on one pipeline stage they take what the ledger says."""
    prediction = small_prediction()
    run, stage = prediction.run, prediction.stages[0][1]
    of_gpu = list(seconds_of_a_gpu(stage.work, gpus=stage.layout.gpus, cluster=run.cluster, stack=run.stack))
    entries = ledger(stage.work, gpus=stage.layout.gpus, cluster=run.cluster, stack=run.stack)
    total_s = sum(float(seconds) for _, seconds in of_gpu)
    assert total_s == pytest.approx(sum(float(each.repeats * each.seconds) for each in entries))
    found = compared(*trace((ODD, 0.0, 1.0)), operators=tuple((operator, float(seconds)) for operator, seconds in of_gpu))
    assert sum(row.predicted_s or 0.0 for row in found.kinds) == pytest.approx(total_s)
    assert any(isinstance(operator, Matmul) for operator, _ in of_gpu)


def test_events_without_a_time_are_left_out() -> None:
    """As long as others have one."""
    broken: list[dict[str, Any]] = [
        {"ph": "X", "cat": "kernel", "name": "x"},
        {"ph": "X", "ts": "soon", "dur": None},
        {"ph": "s", "ts": None},
        {"ph": 3},
    ]
    found = compared(*broken, *trace((next(iter(KERNELS)), 0.0, 10.0)))
    assert (len(found.kinds), found.is_marked) == (1, False)


def test_older_traces_write_their_kinds_large() -> None:
    """Of PyTorch before 1.12."""
    found = compared(*trace((next(iter(KERNELS)), 0.0, 10.0), kind="Kernel"), *trace(("Memset", 20.0, 5.0), kind="Memset"))
    assert (len(found.kinds), round(found.copies_s * 1e6)) == (1, 5)


def test_a_profile_of_another_run_is_doubted() -> None:
    """By its ranks and its GPU, where the trace says them."""
    prediction = small_prediction()
    spans = trace((ODD, 0.0, 1.0))
    devices = [{"id": 0, "name": "NVIDIA A100-SXM4-80GB"}]
    other = {"traceEvents": spans, "distributedInfo": {"world_size": 16}, "deviceProperties": devices}
    assert profile_comparison(prediction, profiled_step(other)).doubts == (
        "the profile is of 16 GPUs, the prediction of 4 GPUs",
        "the profile is of NVIDIA A100-SXM4-80GB, the prediction of H100 SXM 80GB",
    )
    same = other | {"distributedInfo": {"world_size": 4}, "deviceProperties": [{"name": "NVIDIA H100 80GB HBM3"}]}
    for document in (same, {"traceEvents": spans}, {"traceEvents": spans, "distributedInfo": [], "deviceProperties": [3]}):
        assert profile_comparison(prediction, profiled_step(document)).doubts == ()


def test_a_trace_of_cpus_alone_has_no_kernels() -> None:
    """Nothing is matched then."""
    assert not has_kernels(profiled_step([{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 0.0, "dur": 100.0}]))
    assert has_kernels(profiled_step(trace((ODD, 0.0, 1.0))))
