"""Models and layouts of the tests: three families, small, with heads in groups and vocabularies that need padding.

Nemotron's three layers tell those that run again from those that do not; the others have two, for the first and the last.
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.spec.layout import Layout
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel

NEMOTRON = TransformerModel(
    name="nemotron",
    layers=3,
    hidden_size=64,
    attention_heads=4,
    kv_heads=2,
    head_size=16,
    ffn_hidden_size=160,
    activation="squared_relu",
    norm="layernorm",
    rotary_fraction=0.5,
    vocab_size=90,
    vocab_padding_multiple=8,
)
LLAMA = replace(
    NEMOTRON,
    name="llama",
    layers=2,
    kv_heads=4,
    ffn_hidden_size=96,
    activation="swiglu",
    norm="rmsnorm",
    rotary_fraction=1.0,
)
TIED_LLAMA = replace(LLAMA, name="tied llama", kv_heads=2, tied_embeddings=True)
DEEP_LLAMA = replace(TIED_LLAMA, name="deep llama", layers=6)  # for a pipeline of eight pieces
GPT = replace(
    NEMOTRON,
    name="gpt",
    layers=2,
    kv_heads=4,
    ffn_hidden_size=128,
    activation="gelu",
    position="learned",
    rotary_fraction=1.0,
    max_positions=40,
    biases=True,
    tied_embeddings=True,
)
FAMILIES = (NEMOTRON, LLAMA, TIED_LLAMA, GPT)
QWEN = replace(LLAMA, name="qwen", kv_heads=2, biases_of=("qkv",))
QWEN3 = replace(LLAMA, name="qwen3", kv_heads=2, qk_norm="head")
WINDOWS = replace(  # as Gemma alternates them
    QWEN3,
    name="windows",
    layers=4,
    layer_kinds={"near": LayerKind(attention="sliding", window=7), "far": LayerKind()},
    layer_pattern=("near", "far"),
)

ONE_RANK = Layout(
    precision="fp32",
    tensor_parallel=1,
    data_parallel=1,
    sequence_parallel=False,
    sharding="none",
    recompute="none",
    micro_batch_size=2,
    global_batch_size=4,
    sequence_length=24,
)
