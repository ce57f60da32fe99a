"""How long a fine-tuning waits for its host: for transfers beside passes that hide them, and for a step that nothing hides.

    exposed = max(m * (max(f/L - F, 0) + max(b/L - B, 0)) - E, 0) + s/L + h/min(p, H/g)

f, b and s bytes of a forward pass, a backward pass and the step over a link of rate L; F and B what the passes of m
micro-batches take; E what they wait for messages of data parallelism, beside which transfers go on; h bytes that the host
moves for the step at the rate p of one process, or its share of the rate H of a node with g GPUs.
"""

from __future__ import annotations

import numpy as np

from perfmodel.count.iteration import Iteration
from perfmodel.count.parts.adapters import tuning_work
from perfmodel.count.tuning.offload import host_traffic
from perfmodel.errors import NotSupportedError
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.breakdown import Breakdown


def offload_breakdown(
    work: Iteration, cluster: Cluster, *, forward_s: Numeric, backward_s: Numeric, waiting_s: Numeric = 0.0
) -> Breakdown:
    """What the host's memory leaves exposed of an iteration; nothing where all of its state is on the GPUs.

    Errors: NotSupportedError where the link to the host, or its memory, is not known.
    """
    tuning = work.setup.tuning
    if tuning is None or not tuning.offload:
        return Breakdown()
    if cluster.gpu.host_bytes_per_s is None:
        raise NotSupportedError(
            f"how fast {cluster.gpu.name} reaches its host is not known", key="cluster.gpu.host_bytes_per_s"
        )
    traffic, link = host_traffic(work, tuning), cluster.gpu.host_bytes_per_s
    passes_s = np.maximum(traffic.forward / link - forward_s, 0.0) + np.maximum(traffic.backward / link - backward_s, 0.0)
    rate = tuning_work(work.setup).host_bytes_per_s
    if cluster.host_memory_bytes_per_s is not None:
        on_node = np.minimum(np.asarray(work.layout.gpus), cluster.gpus_per_node)
        rate = np.minimum(rate, cluster.host_memory_bytes_per_s / on_node)
    step_s = traffic.step / link + traffic.host / rate
    return Breakdown(offload_s=np.maximum(passes_s * work.layout.micro_batches - waiting_s, 0.0) + step_s)
