"""How a model is fine-tuned: which parameters are trained, what they are held in, by which optimizer, what the host holds.

And what software has of all that.

A run without `training` trains every parameter as its stack does, and none of this is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, Spec, choice, choices, count, flag, number, spreads
from perfmodel.spec.serving.formats import WeightFormat, weight_format
from perfmodel.spec.tuning.optimizers import OPTIMIZERS

PRETRAINING: Final = "pretraining"
TRAININGS: Final = ("full", "lora", "dora", "qlora")  # from that of most memory to that of least, but for dora beside lora
OF_ADAPTERS: Final = ("lora", "dora", "qlora")  # in which adapters are trained beside frozen weights
USUAL: Final = "usual"  # of how parameters are held, in this training
USUAL_RANK: Final = 16
USUAL_OPTIMIZER: Final = "adamw"
AS_THE_STACK: Final = "stack"  # holds parameters: 16 bits with fp32 master copies, as a rule
WEIGHTS: Final = ("bf16", "fp16", "fp32", "int8_wo", "int4", "nf4", "nf4-dq")
USUAL_WEIGHTS: Final = {"full": AS_THE_STACK, "lora": "bf16", "dora": "bf16", "qlora": "nf4-dq"}
TARGETS: Final = ("query", "key", "value", "qkv", "projection", "gate", "fc1", "fc2")
TARGET_NAMES: Final = {  # in PEFT and torchtune
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "o_proj": "projection",
    "output_proj": "projection",
    "gate_proj": "gate",
    "up_proj": "fc1",
    "down_proj": "fc2",
    "w1": "gate",
    "w3": "fc1",
    "w2": "fc2",
    "c_attn": "qkv",
    "query_key_value": "qkv",
    "dense": "projection",
    "fc": "fc1",
}
PARTS: Final = ("embedding", "head", "attention", "mlp", "norms")
OFFLOADS: Final = ("optimizer", "parameters", "activations")
FULL_BYTES: Final = {"bf16": 2.0, "fp16": 2.0, "fp32": 4.0}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FineTuning(Spec):
    """What is trained of a model, and how.

    training         full: the parameters of the model; lora, dora: adapters beside frozen weights; qlora: beside quantised ones
    weights          what parameters that are frozen, or all of a full fine-tuning, are held in; as the stack holds them
    adapter_rank     columns of the first matrix of an adapter, and rows of its second
    adapter_targets  the linears that have one; none named: every linear of attention and of dense MLPs
    trained_parts    parts of the model that are trained beside adapters
    frozen_parts     parts of the model that a full fine-tuning leaves as they are
    optimizer        a row of OPTIMIZERS
    offload          what lies in the memory of the host, and travels
    """

    training: str = choice(*TRAININGS)
    weights: str = choice(AS_THE_STACK, *WEIGHTS)
    adapter_rank: Numeric = count(default=USUAL_RANK)
    adapter_targets: tuple[str, ...] = choices(*TARGETS, default=(), other_names=TARGET_NAMES)
    trained_parts: tuple[str, ...] = choices(*PARTS, default=())
    frozen_parts: tuple[str, ...] = choices(*PARTS, default=())
    optimizer: str = choice(*OPTIMIZERS, default=USUAL_OPTIMIZER)
    offload: tuple[str, ...] = choices(*OFFLOADS, default=())

    @property
    def has_adapters(self) -> bool:
        """Whether adapters are trained."""
        return self.training in OF_ADAPTERS

    @property
    def has_magnitudes(self) -> bool:
        """Whether adapters have a magnitude for each column of their linear (DoRA)."""
        return self.training == "dora"

    @property
    def is_quantised(self) -> bool:
        """Whether matrices of layers are held in fewer than 16 bits, and made 16 bits wide for each product."""
        return self.weights not in FULL_BYTES and self.weights != AS_THE_STACK

    @property
    def weight_format(self) -> WeightFormat:
        """The format of quantised matrices."""
        return weight_format(self.weights)

    @property
    def held_bytes(self) -> float | None:
        """Bytes of a parameter in 16 or 32 bits that the run itself states; None where that is left to the stack."""
        return FULL_BYTES.get(self.weights)

    def trains(self, part: str) -> bool:
        """Whether a part of the model itself (one of PARTS) is trained."""
        return part in self.trained_parts if self.has_adapters else part not in self.frozen_parts

    def has_adapter(self, target: str) -> bool:
        """Whether linears called so have an adapter."""
        return self.has_adapters and (target in self.adapter_targets or (not self.adapter_targets and target != "qkv"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TuningWork(Spec):
    """What software has for fine-tuning, and what it keeps and moves beside the matrices of adapters.

    Of each adapter: `adapter_bytes` a parameter, `adapter_input_bytes` kept of each number of its input beside the input
    itself, `adapter_passes` reads or writes of its result where that is scaled and added, in `adapter_kernels`.
    """

    trainings: tuple[str, ...] = choices(*TRAININGS)
    weights: tuple[str, ...] = choices(AS_THE_STACK, *WEIGHTS)
    optimizers: tuple[str, ...] = choices(*OPTIMIZERS)
    offloads: tuple[str, ...] = choices(*OFFLOADS, default=())
    adapter_bytes: Numeric = number("bytes", above=0)
    adapter_input_bytes: Numeric = number("bytes")
    adapter_passes: Numeric = number("count", above=0)
    adapter_kernels: Numeric = count(minimum=0)
    adapter_units: str = choice("all", "unquantised", "none")  # beside which weights FSDP shards each matrix by itself
    adapter_wait_s: Numeric = number("s")  # that a pass waits for such a matrix to be gathered
    wide_bytes: Numeric = number("bytes", above=0)  # of a parameter beside quantised ones: embedding, head, norms
    upcasts_stream: bool = flag()  # beside quantised weights the residual stream is in fp32
    loss_held_bytes: Numeric = number("bytes")  # of a logit that stay until the backward pass ends
    sharded_loss_held_bytes: Numeric = number("bytes")  # of those, where parameters are sharded
    sharded_checkpoints: Numeric = (
        count()
    )  # copies of what layers that run again keep, from then on, where parameters are sharded
    live_parameters: Numeric = number("count", maximum=1e12)  # that stay gathered where that is more than two layers
    holds_gradients: bool = flag(default=False)  # in a buffer that stays from one iteration to the next
    keeps_inputs: bool = flag()  # products with quantised weights keep their input although these get no gradient
    dequantised_bytes: Numeric = number("bytes")  # moved beside the weight itself where it is widened, of each number
    host_bytes_per_s: Numeric = number("bytes_per_s", above=0)  # that a process reads and writes in the host's memory
    host_adam_bytes: Numeric = number("bytes", above=0)  # moved there by Adam, of a parameter
    spread: Mapping[str, Numeric] = spreads()
