"""Tokens a second of the reference model against transformers' networks of the same configuration, on one core.

    python -m perfmodel.benchmarks.project.against_transformers [--tokens 512]

Forward and backward. Both take the same tokens, the loss over all of them, and attention from the same fused kernel. The
reference model adds its gradients to the fp32 buffer that its optimizer steps, transformers to gradients in the precision of
its parameters. Steps of both alternate; rates are medians, and
so is the ratio, of steps that follow each other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM, NemotronConfig, NemotronForCausalLM

from perfmodel.benchmarks.measure.processes import restarted_to_measure
from perfmodel.model.cores import on_one_core
from perfmodel.model.groups import one_rank
from perfmodel.model.supported import DTYPES
from perfmodel.model.training.data import batch
from perfmodel.model.training.trainer import Trainer
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel

NEMOTRON: Final = TransformerModel(
    name="nemotron",
    layers=8,
    hidden_size=640,
    attention_heads=10,
    kv_heads=5,
    head_size=64,
    ffn_hidden_size=2560,
    activation="squared_relu",
    norm="layernorm",
    rotary_fraction=0.5,
    vocab_size=16_384,
)
LLAMA: Final = replace(NEMOTRON, name="llama", ffn_hidden_size=1728, activation="swiglu", norm="rmsnorm", rotary_fraction=1.0)
WARM_UP: Final = 2
STEPS: Final = 9


def reference(model: TransformerModel, precision: str, tokens: torch.Tensor, targets: torch.Tensor) -> Callable[[], None]:
    """One forward and backward pass of the model of this project."""
    layout = Layout(
        precision=precision,
        tensor_parallel=1,
        data_parallel=1,
        sequence_parallel=False,
        sharding="none",
        recompute="none",
        micro_batch_size=1,
        global_batch_size=1,
        sequence_length=tokens.shape[1],
    )
    network = Trainer(model, layout, one_rank()).model

    def step() -> None:
        network(tokens, targets).backward()
        for parameter in network.parameters():
            parameter.main_grad_is_old = True  # as the optimizer leaves them

    return step


def independent(model: TransformerModel, precision: str, tokens: torch.Tensor, targets: torch.Tensor) -> Callable[[], None]:
    """A training step of the same model as transformers has it."""
    network = _network(model).to(DTYPES[precision])

    def step() -> None:
        logits = network(input_ids=tokens, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()).backward()
        network.zero_grad(set_to_none=True)

    return step


def _network(model: TransformerModel) -> Any:
    shared: dict[str, Any] = {
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.attention_heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "intermediate_size": model.ffn_hidden_size,
        "vocab_size": model.vocab_size,
        "tie_word_embeddings": model.tied_embeddings,
        "attn_implementation": "sdpa",
    }
    rotary = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": model.rotary_fraction}
    if model.activation == "squared_relu":
        return NemotronForCausalLM(NemotronConfig(**shared, rope_parameters=rotary))
    return LlamaForCausalLM(LlamaConfig(**shared, rope_parameters=rotary, hidden_act="silu"))


def times_s(steps: list[Callable[[], None]], repeats: int) -> list[list[float]]:
    """Times [s] of each, one step of each in turn."""
    seconds: list[list[float]] = [[] for _ in steps]
    for repeat in range(WARM_UP + repeats):
        for step, times in zip(steps, seconds, strict=True):
            start = time.perf_counter()
            step()
            if repeat >= WARM_UP:
                times.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Both families in both precisions, as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512, help="of the one sequence of a step")
    parser.add_argument("--steps", type=int, default=STEPS, help="that are timed of each")
    chosen = parser.parse_args()
    restarted_to_measure("perfmodel.benchmarks.project.against_transformers")
    on_one_core("cpu")
    print(
        f"{'model':10}{'precision':11}{'here':>12}{'transformers':>16}{'ratio':>8}   tokens/s, one core, {chosen.tokens} tokens"
    )
    for model in (NEMOTRON, LLAMA):
        for precision in DTYPES:
            data = batch(seed=1, iteration=0, sequences=1, length=chosen.tokens, vocabulary=int(model.vocab_size))
            steps = [made(model, precision, *data) for made in (reference, independent)]
            ours, theirs = times_s(steps, chosen.steps)
            rates = [chosen.tokens / statistics.median(times) for times in (ours, theirs)]
            ratio = statistics.median(other / own for own, other in zip(ours, theirs, strict=True))
            print(f"{model.name:10}{precision:11}{rates[0]:>12,.0f}{rates[1]:>16,.0f}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
