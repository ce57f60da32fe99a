"""The layout that tests start from: the first stage of the Nemotron-4 15B ramp (arXiv:2402.16819)."""

from __future__ import annotations

from perfmodel.spec.layout import Layout

RAMP_STAGE = Layout(
    precision="bf16",
    tensor_parallel=8,
    data_parallel=96,
    sequence_parallel=True,
    sharding="zero1",
    recompute="none",
    micro_batch_size=1,
    global_batch_size=384,
    sequence_length=4096,
)
