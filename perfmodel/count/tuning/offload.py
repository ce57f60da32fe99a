"""What travels between a GPU and the memory of its host in a fine-tuning that leaves some of its state there.

optimizer     gradients go there and parameters come back, once an iteration; the step itself is the host's
parameters    a rank fetches its shard for each pass
activations   the inputs of layers that run again go there in the forward pass, and come back in the backward pass
"""

from __future__ import annotations

from perfmodel.count.data_parallel import shards
from perfmodel.count.iteration import Iteration
from perfmodel.count.memory.storage import state_bytes, stream_bytes
from perfmodel.count.parts.adapters import tuning_work
from perfmodel.count.tuning.trained import tuned_numbers, tuned_wire_bytes
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric
from perfmodel.spec.tuning.fine_tuning import FineTuning


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTraffic:
    """Bytes over the link of one GPU: of each forward and backward pass of a micro-batch, and of the step.

    `host` are those that the host moves in its own memory for that GPU's share of the step.
    """

    forward: Numeric
    backward: Numeric
    step: Numeric
    host: Numeric


def host_traffic(work: Iteration, tuning: FineTuning) -> HostTraffic:
    """What one GPU and its host exchange."""
    setup, held = work.setup, work.stages.first.parameters
    wire = tuned_wire_bytes(setup, held, tuning)
    forward: Numeric = 0.0
    backward: Numeric = 0.0
    step: Numeric = 0.0
    host: Numeric = 0.0
    if "parameters" in tuning.offload:
        forward = forward + wire.gathered / shards(work.layout, "parameters")
        backward = backward + wire.gathered / shards(work.layout, "parameters")
    if "activations" in tuning.offload:
        kept = stream_bytes(setup) * setup.model.layers
        forward, backward = forward + kept, backward + kept
    if "optimizer" in tuning.offload:
        layers = {kind: setup.model.layers_of(kind, 0, setup.model.layers) for kind in setup.model.kinds}
        numbers = tuned_numbers(setup.model, held, layers, tuning)
        owned = numbers.trained / shards(work.layout, "optimizer")
        each = state_bytes(work.layout, setup.stack, tuning)
        step = step + owned * (each.reduced_gradient + each.parameter)
        host = host + owned * tuning_work(setup).host_adam_bytes
    return HostTraffic(forward=forward, backward=backward, step=step, host=host)
