"""Are Mamba-2 and the gated delta rule counted as their kernels run them, and as the published convention counts them?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pytest

from perfmodel.count.flops import layer_flop_per_token, model_flop_per_token
from perfmodel.count.iteration import iteration
from perfmodel.count.layer import layer_parts
from perfmodel.count.operators import Collective, Matmul, MemoryBound, Operator, hardware_flop, model_flop, saved_bytes
from perfmodel.count.parameters import layer_parameters, parameter_count
from perfmodel.count.roles import SCANS, Role
from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.layer_parts import GatedDelta, StateSpace
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import DATA_GRADIENT, RECOMPUTE
from perfmodel.spec.refusals import check_setup, may_exist
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

NANO: Final = model_preset("nemotron-3-nano")
SUPER: Final = model_preset("nemotron-3-super")
QWEN: Final = model_preset("qwen3-next-80b-a3b")
ONE: Final = replace(
    RAMP_STAGE, tensor_parallel=1, data_parallel=8, micro_batch_size=1, global_batch_size=8, sequence_length=256,
    sequence_parallel=False,
)  # fmt: skip
T: Final = 256  # tokens of a micro-batch
MAMBA: Final = StateSpace(
    heads=16, head_size=8, groups=4, state_size=32, convolution=4, chunk_size=64
)  # 128 wide, 384 channels
DELTA: Final = GatedDelta(
    key_heads=4, value_heads=8, key_head_size=16, value_head_size=24, convolution=4
)  # keys 64, values 192


def wide(model: TransformerModel) -> TransformerModel:
    """Nano with heads of 84 numbers: 2*h of all, which Megatron-LM counts whatever heads there are."""
    assert model.state_space is not None
    return replace(model, state_space=replace(model.state_space, head_size=84))


def with_mixer(kind: str, **section: Any) -> TransformerModel:
    """Nemotron-4 15B, small, with such mixers and without feed-forward parts."""
    kinds = MappingProxyType({kind: LayerKind(attention=kind, feed_forward="none")})
    sizes: dict[str, Any] = {
        "hidden_size": 96,
        "attention_heads": 8,
        "kv_heads": 8,
        "head_size": 12,
        "ffn_hidden_size": 64,
        "vocab_size": 1024,
    }
    return replace(model_preset("nemotron-4-15b"), layers=2, layer_kinds=kinds, **sizes, **section)


SMALL: Final = {
    "mamba2": with_mixer("mamba2", state_space=MAMBA),
    "gated_delta": with_mixer("gated_delta", delta=DELTA),
}


def inside(model: TransformerModel, layout: Layout = ONE) -> Any:
    """The layer of the small model's only kind."""
    (blocks,) = iteration(setup_of(model, layout)).layers.values()
    return blocks.plain


AROUND: Final = {*SCANS, Role.ELEMENTWISE}


def scans(operators: Iterable[Operator], kind: type[MemoryBound | Matmul] = MemoryBound) -> dict[str, Any]:
    """What lies between the projections of a mixer, by the last part of its name."""
    return {
        op.name.rpartition(".")[2]: op
        for op in operators
        if isinstance(op, kind) and op.role in AROUND and "residual" not in op.name
    }


@pytest.mark.parametrize(
    ("model", "length", "printed", "named"),
    [
        (wide(NANO), 8192, 22.3e9, 0.0),
        (replace(SUPER, multi_token_layers=2, multi_token_kinds=("full", "experts")), 8192, 84.7e9, 0.0),
        # it does not count the gate of attention, of 12 layers and the further one
        (replace(QWEN, multi_token_layers=1), 4096, 24.5e9, 13 * 6 * 2048 * 4096),
    ],
    ids=["nemotron-3-nano", "nemotron-3-super", "qwen3-next"],
)
def test_flop_of_hybrids_are_those_that_nvidia_prints(
    model: TransformerModel, length: int, printed: float, named: float
) -> None:
    """Within 1 %, after what its count leaves out or takes otherwise; with causal attention, and logits once a prediction."""
    counted = float(model_flop_per_token(model, length, convention="causal"))
    assert counted - named == pytest.approx(printed, rel=0.01)


def test_the_real_width_of_mamba_leaves_nano_below_the_printed_count() -> None:
    """2*(3*h + ..)*(5376 - 4096) FLOPs a token less in each of 23 layers, forward, and twice backward."""
    less = 23 * 3 * (5376 - 4096) * (2 * 2688 * 3 + 7 * 128)
    assert float(model_flop_per_token(wide(NANO), 8192)) - float(model_flop_per_token(NANO, 8192)) == pytest.approx(
        less, rel=1e-12
    )


@pytest.mark.parametrize("tensor", [1, 2, 8, 16])
@pytest.mark.parametrize("model", [NANO, QWEN], ids=["mamba2", "gated_delta"])
def test_operators_add_up_to_the_closed_form(model: TransformerModel, tensor: int) -> None:
    """Whatever chunks there are, and where ranks copy groups."""
    if model is NANO and tensor > 2:
        model = replace(model, kv_heads=16)  # so that only the groups of Mamba-2 are copied
    layout = replace(
        ONE, tensor_parallel=tensor, data_parallel=16 // tensor, global_batch_size=16, sequence_length=4096,
        sequence_parallel=tensor > 1, expert_parallel=16,
    )  # fmt: skip
    whole = iteration(setup_of(model, layout)).fold(model_flop) * layout.gpus
    tokens = layout.global_batch_size * layout.sequence_length
    assert whole / tokens == pytest.approx(float(model_flop_per_token(model, 4096)), rel=1e-12)


def test_a_chunk_of_mamba_multiplies_what_the_paper_says() -> None:
    """2*(G*Q*N + d*Q + 2*d*N) a token; twice that backwards, where states and scores are formed once more."""
    block = inside(SMALL["mamba2"])
    forward = 2 * T * (4 * 64 * 32 + 128 * 64 + 2 * 128 * 32)
    again = 2 * T * (4 * 64 * 32 + 128 * 32)
    of_scan = [op for op in block.forward if op.role is Role.SCAN]
    assert hardware_flop(of_scan) == pytest.approx(forward)
    back = [op for op in block.backward if op.role is Role.SCAN]
    assert hardware_flop(op for op in back if op.phase == DATA_GRADIENT) == pytest.approx(2 * forward)
    assert hardware_flop(op for op in back if op.phase == RECOMPUTE) == pytest.approx(again)


def test_a_chunk_of_the_delta_rule_multiplies_what_its_kernels_do() -> None:
    """2*H*(C*(3*p + 2*v + C) + 3*p*v) a token with chunks of C = 64; backwards w, u, states and scores once more."""
    block = inside(SMALL["gated_delta"])
    forward = 2 * T * 8 * (64 * (3 * 16 + 2 * 24 + 64) + 3 * 16 * 24)
    again = 2 * T * 8 * (64 * (2 * 16 + 24) + 2 * 16 * 24)
    of_scan = [op for op in block.forward if op.role is Role.DELTA_RULE]
    assert hardware_flop(of_scan) == pytest.approx(forward)
    back = [op for op in block.backward if op.role is Role.DELTA_RULE]
    assert hardware_flop(op for op in back if op.phase == DATA_GRADIENT) == pytest.approx(2 * forward)
    assert hardware_flop(op for op in back if op.phase == RECOMPUTE) == pytest.approx(again)


@pytest.mark.parametrize("kind", SMALL)
def test_a_sequence_shorter_than_a_chunk_is_one_chunk(kind: str) -> None:
    """Of its own length."""
    short = replace(ONE, sequence_length=32)
    products = scans(inside(SMALL[kind], short).forward, Matmul)
    assert {float(product.rows) for product in products.values()} <= {32.0, 8.0, 16.0}
    assert float(products["chunk_output"].inner) == 32


BYTES: Final[dict[str, dict[str, tuple[float, float, float]]]] = {  # of a token: moved forwards, moved backwards, kept
    "mamba2": {
        "convolution": (2 * 2 * 384, 5 * 2 * 384, 2 * (128 + 384 + 16)),
        "steps": (10 * 16, 22 * 16, 0),
        "state_passing": ((4 + 2) * 128 * 32 / 64, (12 + 8) * 128 * 32 / 64, 0),
        "gated_norm": (3 * 2 * 128, 5 * 2 * 128, 2 * 128 + 4 * 4),
    },
    "gated_delta": {
        "convolution": (2 * 2 * 320, 3 * 2 * 320, 2 * 320),
        "copies": (2 * (320 + 256 + 192), 2 * (320 + 256 + 192), 2 * 192),
        "chain": (0, 0, 0),
        "gates": (18 * 8, 18 * 8, 16 * 8),
        "unit_keys": (2 * 2 * 256, 3 * 2 * 256, 2 * 256 + 8 * 8),
        "inverse_copy": (6 * 64 * 8, 0, 2 * 64 * 8),
        "gated_norm": (3 * 2 * 192, 5 * 2 * 192, 2 * 2 * 192),
    },
}


@pytest.mark.parametrize("kind", SMALL)
def test_every_byte_between_the_projections_is_that_of_the_closed_form(kind: str) -> None:
    """What each kernel reads and writes, and what is kept until the backward pass."""
    block = inside(SMALL[kind])
    there, back = scans(block.forward), scans(block.backward)
    found = {
        name: tuple(float(each) / T for each in (op.moved_bytes, back[name].moved_bytes, op.saved_bytes))
        for name, op in there.items()
    }
    assert found == {name: pytest.approx(numbers) for name, numbers in BYTES[kind].items()}


@pytest.mark.parametrize("kind", SMALL)
def test_a_layer_keeps_what_its_operators_keep(kind: str) -> None:
    """Input of the norm and of both projections, and what lies between them."""
    between = sum(kept for _, _, kept in BYTES[kind].values())
    width = {"mamba2": 128, "gated_delta": 192}[kind]
    assert saved_bytes(inside(SMALL[kind]).forward) == pytest.approx(T * (2 * (96 + 96 + width) + between))


@pytest.mark.parametrize("kind", SMALL)
def test_parameters_of_a_mixer_are_those_of_its_parts(kind: str) -> None:
    """Both projections; convolution, biases and numbers of heads; norms of the mixer and of the stream (with biases)."""
    held = layer_parameters(SMALL[kind], kind, tensor_parallel=1)
    matrices, vectors, norm = {
        "mamba2": (96 * (2 * 128 + 2 * 128 + 16) + 128 * 96, 384 * 5 + 3 * 16, 128),
        "gated_delta": (96 * (2 * 64 + 2 * 192 + 2 * 8) + 192 * 96, 320 * 4 + 2 * 8, 24),
    }[kind]
    assert (held.attention, held.norms) == (matrices + vectors, norm + 2 * 96)


def test_ranks_beyond_the_groups_copy_them() -> None:
    """16 ranks hold a quarter of the columns of four groups each; only one copy counts."""
    (part,) = layer_parts(SMALL["mamba2"], LayerKind(attention="mamba2", feed_forward="none"), 16)
    assert part.into is not None
    assert part.into.joined.columns == 2 * 8 + 2 * 32 + 1
    assert part.into.joined.useful * part.into.joined.columns == pytest.approx(2 * 8 + 2 * 4 * 32 / 16 + 1)


@pytest.mark.parametrize("kind", SMALL)
def test_software_that_has_projections_apart_runs_as_many_products(kind: str) -> None:
    """Queries, keys, values and gate in one, both numbers of heads in another; Mamba-2 has one in any software."""
    stack = stack_with(stack_preset("megatron-core"), {"fusion.separate_projections": True})
    (blocks,) = iteration(setup_of(SMALL[kind], ONE, stack)).layers.values()
    products = [op for op in blocks.plain.forward if isinstance(op, Matmul) and op.role is Role.PRODUCT]
    assert [float(op.columns) for op in products] == {"mamba2": [528.0], "gated_delta": [512.0, 16.0]}[kind]


def test_graphs_of_mixers_replay_them_alone() -> None:
    """And those of attention replay no mixer."""
    for graphed, replayed in (("mixer", True), ("attention", False)):
        stack = stack_with(stack_preset("megatron-core"), {"host.graphed": (graphed,)})
        layers = iteration(setup_of(NANO, ONE, stack)).layers
        assert all(op.replayed is replayed for op in layers["mamba2"].plain.operators)
        assert all(op.replayed is not replayed for op in layers["full"].plain.operators)


def test_low_precision_takes_the_projections_alone() -> None:
    """What chunks multiply stays in 16 bits."""
    formats = {op.precision for op in scans(inside(SMALL["mamba2"], replace(ONE, precision="fp8")).forward, Matmul).values()}
    assert formats == {"bf16"}


def test_tensor_parallel_ranks_share_heads_and_reduce_what_projections_give() -> None:
    """With sequence parallelism the tokens are gathered before the mixer: each rank scans all of them."""
    layout = replace(ONE, tensor_parallel=4, data_parallel=2, global_batch_size=2, sequence_parallel=True)
    block = inside(SMALL["mamba2"], layout)
    kinds = [op.kind for op in block.forward if isinstance(op, Collective)]
    assert kinds == ["all_gather", "reduce_scatter"]
    whole = scans(inside(SMALL["mamba2"]).forward)
    assert scans(block.forward)["convolution"].moved_bytes == pytest.approx(float(whole["convolution"].moved_bytes) / 4)


@pytest.mark.parametrize(
    ("model", "changes", "sentence"),
    [
        (NANO, {"context_parallel": 2, "data_parallel": 4}, "mamba2 over 2 ranks of a sequence is not covered; 1 would do"),
        (QWEN, {"context_parallel": 2, "data_parallel": 4}, "gated_delta over 2 ranks of a sequence is not covered"),
    ],
)
def test_sequences_of_mixers_are_not_shared(model: TransformerModel, changes: dict[str, Any], sentence: str) -> None:
    """Known in the field, but not covered: refused by the name of the mixer."""
    layout = replace(ONE, global_batch_size=4, **changes)
    with pytest.raises(NotSupportedError, match=sentence):
        check_setup(setup_of(model, layout))
    shares = replace(layout, context_parallel=np.array([1, 2]))
    assert np.asarray(may_exist(setup_of(model, shares))).tolist() == [True, False]


@pytest.mark.parametrize(
    ("model", "tensor", "sentence"),
    [
        (replace(SMALL["mamba2"], attention_heads=96, kv_heads=96), 32, "32 does not divide 16 heads of Mamba-2"),
        (replace(SMALL["mamba2"], state_space=replace(MAMBA, heads=24, groups=3)), 2, "2 neither divides 3 groups"),
        (SMALL["gated_delta"], 8, "8 does not divide 4 key heads"),
    ],
)
def test_ranks_must_divide_the_heads_of_mixers(model: TransformerModel, tensor: int, sentence: str) -> None:
    """And the groups of Mamba-2, or be a multiple of them."""
    layout = replace(ONE, tensor_parallel=tensor, data_parallel=1, global_batch_size=1)
    with pytest.raises(InputError, match=sentence):
        check_setup(setup_of(model, layout))


def test_recompute_of_every_second_product_is_not_known_of_mixers() -> None:
    """torchtitan's selective mode is refused; full recompute, and modules by name, are not."""
    stack = stack_with(stack_preset("megatron-core"), {"fusion.selective_recompute": "every_second_product"})
    layout = replace(ONE, recompute="selective")
    with pytest.raises(NotSupportedError, match=r"not covered for mamba2; none or full would do"):
        check_setup(setup_of(SMALL["mamba2"], layout, stack))
    check_setup(setup_of(SMALL["mamba2"], replace(layout, recompute="full"), stack))
    check_setup(setup_of(SMALL["mamba2"], replace(layout, recompute_modules=("layernorm",)), stack))
    check_setup(setup_of(SMALL["mamba2"], layout))


def test_layers_that_predict_further_may_be_of_other_kinds_than_the_last() -> None:
    """Nemotron-3 Super's are one of attention and one of experts, behind a pattern that ends with Mamba-2."""
    deeper = replace(SUPER, multi_token_layers=1, multi_token_kinds=("full", "experts"))
    full, experts = (layer_parameters(SUPER, kind, tensor_parallel=1) for kind in ("full", "experts"))
    more = parameter_count(deeper).total - parameter_count(SUPER).total
    assert more == full.total + experts.total + 2 * 4096 * 4096 + 3 * 4096
    names = [op.name for op in iteration(setup_of(deeper, replace(ONE, expert_parallel=8))).head.forward]
    assert "multi_token.full.attention.qkv" in names
    assert "multi_token.experts.mlp.fc1" in names


def test_further_layers_of_an_unknown_kind_are_refused() -> None:
    """With the kinds that there are."""
    with pytest.raises(InputError, match="multi_token_kinds: fulll is no kind of layer"):
        replace(SUPER, multi_token_layers=1, multi_token_kinds=("fulll",))


def test_scans_count_what_megatron_counts() -> None:
    """7*d*N of Mamba-2, 2*(k*(2*K + V) + 4*H*v*v) of the delta rule, forward, and twice backward; whatever the length."""
    without = {
        kind: sum(part.model_flop_per_token for part in layer_parts(SMALL[kind], SMALL[kind].kinds[kind], 1)) for kind in SMALL
    }
    for length in (256, 65536):
        counted = {kind: float(layer_flop_per_token(SMALL[kind], kind, length) - without[kind]) for kind in SMALL}
        assert counted == {
            "mamba2": pytest.approx(3 * 7 * 128 * 32),
            "gated_delta": pytest.approx(3 * 2 * (4 * (2 * 64 + 192) + 4 * 8 * 24 * 24)),
        }


KERNELS: Final = {  # forwards and backwards
    "mamba2": {"convolution": (1, 2), "steps": (1, 2), "state_passing": (1, 2), "gated_norm": (1, 2)},
    "gated_delta": {
        "convolution": (1, 1), "copies": (3, 3), "chain": (0, 0), "gates": (8, 8), "unit_keys": (2, 2), "inverse_copy": (1, 1),
        "gated_norm": (1, 2),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", SMALL)
def test_mixers_launch_their_kernels_and_one_more_where_sums_come_behind(kind: str) -> None:
    """Chains of chunks launch none: they wait, backwards twice as long."""
    block = inside(SMALL[kind])
    there, back = scans(block.forward), scans(op for op in block.backward if op.phase == DATA_GRADIENT)
    assert {name: (op.kernels, back[name].kernels) for name, op in there.items()} == KERNELS[kind]
    chained = [(op.phase, float(op.chained)) for op in block.operators if isinstance(op, MemoryBound) and op.chained]
    steps = {"mamba2": [], "gated_delta": [("forward", 4.0), ("data_gradient", 8.0), ("recompute", 4.0)]}[kind]
    assert sorted(chained) == sorted(steps)
