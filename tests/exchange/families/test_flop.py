"""Does every family have the FLOPs that torch counts while transformers' own networks run forward and backward?

Attention is written out in both: all scores are formed, whatever a window leaves of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import hardware_flop
from perfmodel.exchange.presets import stack_preset
from perfmodel.spec.models.model import TransformerModel
from tests.count.meta_networks import network_flop
from tests.count.test_flop_oracle import ONE_GPU, SEQUENCE_LENGTH
from tests.exchange.families.small_configs import SMALL_CONFIGS, SmallConfig
from tests.exchange.families.transformers_networks import TEXT_MODELS, meta_network, read_small, routed_flop
from tests.setups import setup_of

pytestmark = pytest.mark.slow
ROUTED = (  # experts of all kinds, and attention of sizes of its own beside them
    *("mixtral", "qwen2_moe", "gpt_oss", "deepseek_v3", "mimo_v2_flash"),
    "gemma4_text-enable_moe_block-num_experts-top_k_experts-moe_intermediate_size",
)
TOKENS = 48


def has_counterpart(config: SmallConfig) -> bool:
    """Whether the network of a config has a head, and runs without numbers, which the choice of experts and scans need."""
    model = read_small(config)
    needs_numbers = any(part is not None for part in (model.mixture, model.state_space, model.delta))
    return not needs_numbers and config.family not in ("glm4v_text", "qwen3_vl_moe_text", *TEXT_MODELS)


FIRST = {config.family: config for config in reversed(SMALL_CONFIGS) if has_counterpart(config)}
OTHERS = [
    config for config in SMALL_CONFIGS if config.family in ("falcon", "gpt_bigcode") and FIRST[config.family] is not config
]


def without_windows(model: TransformerModel) -> TransformerModel:
    """The same model, all of whose layers see all tokens."""
    kinds = {
        name: replace(kind, attention="full", window=None) for name, kind in model.kinds.items() if kind.window is not None
    }
    return model if model.layer_kinds is None else replace(model, layer_kinds={**model.kinds, **kinds})


def shallow(config: SmallConfig) -> SmallConfig:
    """The same model with two layers, which tell the layers from the head."""
    layers: dict[str, Any] = {key: 2 for key in ("num_hidden_layers", "n_layer", "n_layers") if key in config.keys}
    layers |= {"first_k_dense_replace": 1} if "first_k_dense_replace" in config.keys else {}
    layers |= {key: types[:2] for key in ("layer_types",) if isinstance(types := config.keys.get(key), list)}
    return config._replace(keys=config.keys | layers)


@pytest.mark.parametrize("config", [*FIRST.values(), *OTHERS], ids=str)
def test_flop_are_those_that_torch_counts(config: SmallConfig) -> None:
    """One sequence, forward and backward; one config a family, and those whose products have other sizes."""
    config = shallow(config)
    model = read_small(config)
    masks_tokens = model.position in ("alibi", "learned")
    counted = network_flop(meta_network(config), sequences=1, sequence_length=SEQUENCE_LENGTH, masks_tokens=masks_tokens)
    work = iteration(setup_of(model, ONE_GPU, stack_preset("megatron-lm")))
    assert hardware_flop(work.operators) == counted
    full = without_windows(model)
    assert model_flop_per_token(full, SEQUENCE_LENGTH) * SEQUENCE_LENGTH == pytest.approx(counted, rel=1e-12)


@pytest.mark.parametrize("name", ROUTED)
def test_flop_of_experts_are_those_that_torch_counts(name: str) -> None:
    """While real tokens run through them, forward and backward: with those of the router, which no convention counts."""
    config = shallow(next(each for each in SMALL_CONFIGS if str(each) == name))
    model = read_small(config)
    setup = setup_of(model, replace(ONE_GPU, sequence_length=TOKENS), stack_preset("megatron-lm"))
    assert hardware_flop(iteration(setup).operators) == routed_flop(config, tokens=TOKENS)
