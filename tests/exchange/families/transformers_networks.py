"""The models of small configs: as transformers builds them on the meta device, and as they are read here."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerTextModel
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeThinkerTextModel
from transformers.models.step3p7.modeling_step3p7 import Step3p7TextModel

from perfmodel.exchange.building import build
from perfmodel.exchange.importers.registry import Document, imported
from perfmodel.spec.models.model import TransformerModel
from tests.exchange.families.small_configs import SmallConfig

TEXT_MODELS: dict[str, Any] = {  # that no automatic class makes
    "step3p5": Step3p7TextModel,
    "qwen2_5_omni_text": Qwen2_5OmniThinkerTextModel,
    "qwen3_omni_moe_text": Qwen3OmniMoeThinkerTextModel,
}


def network_config(config: SmallConfig) -> Any:
    """The configuration that transformers makes of the keys."""
    return transformers.CONFIG_MAPPING[config.family](**config.keys)


def meta_network(config: SmallConfig) -> Any:
    """The network, whose tensors have shapes alone, and whose attention is written out as products."""
    theirs = network_config(config)
    with torch.device("meta"):
        if type(theirs) in transformers.AutoModelForCausalLM._model_mapping:
            return transformers.AutoModelForCausalLM.from_config(theirs, attn_implementation="eager")
        network = _text_model(theirs)
        if not getattr(theirs, "tie_word_embeddings", False):
            network.lm_head = torch.nn.Linear(theirs.hidden_size, theirs.vocab_size, bias=False)
        return network


def _text_model(config: Any) -> Any:
    """The text model of one that sees."""
    if type(config) in transformers.AutoModel._model_mapping:
        return transformers.AutoModel.from_config(config, attn_implementation="eager")
    config._attn_implementation = "eager"
    return TEXT_MODELS[config.model_type](config)


def routed_flop(config: SmallConfig, *, tokens: int) -> int:
    """What torch counts of one sequence forward and backward, expert by expert, without what forms the rotary tables."""
    network = transformers.AutoModelForCausalLM.from_config(
        network_config(config), attn_implementation="eager", experts_implementation="eager"
    )
    with FlopCounterMode(display=False) as counter:
        network(input_ids=torch.arange(tokens)[None], use_cache=False).logits.sum().backward()
    tables = (sum(flop.values()) for name, flop in counter.get_flop_counts().items() if name.endswith(".rotary_emb"))
    return int(counter.get_total_flops()) - int(sum(tables))


def read_config(mapping: dict[str, Any]) -> TransformerModel:
    """The model that a config.json with this content describes."""
    found = imported(Document(path=None, text="", mapping=mapping), "models")
    assert found is not None
    return build(TransformerModel, found)


def read_small(config: SmallConfig) -> TransformerModel:
    """The model that the keys of a small config describe, as a person may have written them."""
    return read_config({"model_type": config.family} | config.keys)
