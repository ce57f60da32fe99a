"""All flags of a run for Megatron-LM, by subject, and which keys of a stack they decide."""

from __future__ import annotations

from typing import Any, Final

from perfmodel.exchange.translation.megatron import run_flags as written
from perfmodel.exchange.translation.megatron.model_flags import model_flags
from perfmodel.spec.run import RampStage, Run

FAMILIES: Final = ("megatron-core", "megatron-lm")
SWITCHES: Final = (  # keys of a stack that flags say
    *("overlap.tensor_parallel", "overlap.context_parallel_exchange", "overlap.pipeline", "overlap.data_parallel"),
    *("overlap.bucket_parameters", "fusion.attention", "fusion.attention_library", "fusion.softmax", "fusion.rotary"),
    *("fusion.activation", "fusion.gradient_accumulation", "fusion.fp32_stream", "fusion.loss_peak_bytes"),
    *("low_precision.scaling", "low_precision.parameter_gather", "states.gradient_bytes", "states.reduced_gradient_bytes"),
    *("states.optimizer_bytes", "experts.dispatcher", "experts.overlap", "host.cuda_graphs", "host.graphed"),
)


CONNECTIONS: Final = {"blackwell": 32}  # CUDA_DEVICE_MAX_CONNECTIONS by generation of GPUs, where not 1
FOR_FSDP: Final = 8  # which needs more than one connection


def host_environment(run: Run) -> str:
    """The line of a script that sets what Megatron-Core needs of the environment."""
    number = FOR_FSDP if run.sharding in written.FSDP else CONNECTIONS.get(run.cluster.gpu.generation, 1)
    return f"export CUDA_DEVICE_MAX_CONNECTIONS={number}\n"


def flag_groups(run: Run, stages: tuple[RampStage, ...]) -> dict[str, dict[str, Any]]:
    """The flags of some stages of a run with as many GPUs, by subject; True for a bare flag."""
    layout = run.layout(stages[-1])
    return {
        "MODEL": dict(model_flags(run.model)),
        "PARALLEL": dict(written.degree_flags(run, layout)) | dict(written.state_flags(run, layout)),
        "TRAINING": dict(written.batch_flags(run, stages)) | dict(written.precision_flags(run, layout)),
        "KERNELS": dict(written.recompute_flags(layout)) | dict(written.kernel_flags(run, layout)),
    }
