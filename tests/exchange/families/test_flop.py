"""Does every family have the FLOPs that torch counts while transformers' own networks run forward and backward?

Attention is written out in both: all scores are formed, whatever a window leaves of them.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import hardware_flop
from perfmodel.exchange.presets import stack_preset
from tests.count.meta_networks import network_flop
from tests.count.test_flop_oracle import ONE_GPU, SEQUENCE_LENGTH
from tests.exchange.families.small_configs import SMALL_CONFIGS, SmallConfig
from tests.exchange.families.transformers_networks import meta_network, read_small
from tests.setups import setup_of

pytestmark = pytest.mark.slow


FIRST = {config.family: config for config in reversed(SMALL_CONFIGS)}
OTHERS = [
    config for config in SMALL_CONFIGS if config.family in ("falcon", "gpt_bigcode") and FIRST[config.family] is not config
]


def shallow(config: SmallConfig) -> SmallConfig:
    """The same model with two layers, which tell the layers from the head."""
    layers = {key: 2 for key in ("num_hidden_layers", "n_layer", "n_layers") if key in config.keys}
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
    full = replace(model, layer_kinds=None, layer_pattern=())
    assert model_flop_per_token(full, SEQUENCE_LENGTH) * SEQUENCE_LENGTH == pytest.approx(counted, rel=1e-12)
